package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// Image references are put in full here, by hand: the patterns of
// distribution/reference take a millisecond to compile at every start. A test
// holds this to that.

const (
	defaultDomain = "docker.io"
	officialRepo  = "library/"
	defaultTag    = "latest"
	digestMark    = "sha256:"
	maxRepository = 255
)

// normalReference puts a reference in full: busybox becomes
// docker.io/library/busybox:latest.
func normalReference(ref string) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("invalid image reference %q: %s", ref, why) }
	rest, digest, pinned := strings.Cut(ref, "@")
	if pinned && !isDigest(digest) {
		return bad("what follows @ is no digest")
	}
	domain, path := splitDomain(rest)
	tag := ""
	if i := strings.IndexByte(path, ':'); i >= 0 {
		path, tag = path[:i], path[i+1:]
		if !isTag(tag) {
			return bad("the tag must be of at most 128 letters, digits, _, . and -")
		}
	}
	if !isDomain(domain) {
		return bad("its host is no host name")
	}
	if strings.ToLower(path) != path {
		return bad("the repository's name must be in lower case")
	}
	for _, part := range strings.Split(path, "/") {
		if !isComponent(part) {
			return bad("the repository's name must be of lower-case letters and digits, with single . _ or - between them")
		}
	}
	if len(path) > maxRepository {
		return bad("it is too long")
	}
	if isHex(rest) && len(rest) == 64 {
		return bad("an id is no name")
	}
	full := domain + "/" + path
	if tag == "" && !pinned {
		tag = defaultTag
	}
	if tag != "" {
		full += ":" + tag
	}
	if pinned {
		full += "@" + digest
	}
	return full, nil
}

// splitDomain takes the host off, and puts in docker.io and library/ where they
// are left out.
func splitDomain(ref string) (domain, path string) {
	first, rest, found := strings.Cut(ref, "/")
	if !found || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, path = defaultDomain, ref
	} else {
		domain, path = first, rest
	}
	if domain == "index.docker.io" {
		domain = defaultDomain
	}
	if domain == defaultDomain && !strings.Contains(path, "/") {
		path = officialRepo + path
	}
	return domain, path
}

func isDomain(s string) bool {
	host, port, hasPort := strings.Cut(s, ":")
	if rest, ok := strings.CutPrefix(s, "["); ok { // an IPv6 address
		var after string
		if host, after, ok = strings.Cut(rest, "]"); !ok || host == "" || strings.Trim(host, "0123456789abcdefABCDEF:") != "" {
			return false
		}
		if port, hasPort = strings.CutPrefix(after, ":"); after != "" && !hasPort {
			return false
		}
		return !hasPort || digits(port)
	}
	if hasPort && !digits(port) {
		return false
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || !only(label, "-", true) {
			return false
		}
	}
	return true
}

// isComponent: letters and digits in lower case, between them one . or _, two _,
// or any number of -.
func isComponent(s string) bool {
	if s == "" || !only(s, "._-", false) {
		return false
	}
	for i := 0; i < len(s); {
		if alphanumeric(s[i], false) {
			i++
			continue
		}
		run := i
		for run < len(s) && !alphanumeric(s[run], false) {
			run++
		}
		sep := s[i:run]
		if i == 0 || run == len(s) || sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = run
	}
	return true
}

func isTag(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && only(s, "_.-", true)
}

func isDigest(s string) bool {
	rest, ok := strings.CutPrefix(s, digestMark)
	return ok && len(rest) == 64 && isHex(rest)
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

func alphanumeric(c byte, upper bool) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || upper && c >= 'A' && c <= 'Z'
}

// only reports whether s holds letters, digits and characters of more.
func only(s, more string, upper bool) bool {
	for i := range len(s) {
		if !alphanumeric(s[i], upper) && strings.IndexByte(more, s[i]) < 0 {
			return false
		}
	}
	return true
}

// imageRef is what a person's word for an image is sent as: its name in full, or
// the id as it stands. What may be both is looked for by name first.
func (a *app) imageRef(ctx context.Context, arg string) (string, error) {
	if isDigest(arg) || isHex(arg) && len(arg) == 64 {
		return arg, nil
	}
	if id, ok := strings.CutPrefix(arg, digestMark); ok && isHex(id) {
		return arg, nil
	}
	full, err := normalReference(arg)
	if err != nil {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "%w", err)
	}
	if !isHex(arg) {
		return full, nil
	}
	if _, err := a.resolve(ctx, core.KindImage, full); !errdefs.IsNotFound(err) {
		return full, err
	}
	if r, err := a.resolve(ctx, core.KindImage, arg); err == nil {
		return r.ID, nil
	} else if !errdefs.IsNotFound(err) {
		return "", err
	}
	return full, nil
}

// familiar is a full reference as people write it, without the tag latest.
func familiar(ref string) string { return strings.TrimSuffix(withTag(ref), ":"+defaultTag) }

// withTag is a full reference as people write it, with its tag.
func withTag(ref string) string {
	if id, ok := strings.CutPrefix(ref, digestMark); ok {
		return id[:min(12, len(id))]
	}
	return core.FamiliarImage(ref)
}

// splitTag takes a full reference apart as the columns of a table show it.
func splitTag(ref string) (repository, tag string) {
	rest, _, _ := strings.Cut(withTag(ref), "@")
	i := strings.LastIndexByte(rest, ':')
	if i < 0 || strings.Contains(rest[i:], "/") {
		return rest, "<none>"
	}
	return rest[:i], rest[i+1:]
}
