package resctrl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultClass is the specification's name of the file system's root: the class
// of everybody who was put into none.
const defaultClass = "/"

// Check refuses what cannot be written, by the field's name. It needs no kernel.
func Check(want *specs.LinuxIntelRdt) error {
	if want == nil {
		return nil
	}
	if err := checkName(want.ClosID); err != nil {
		return err
	}
	if s := want.MemBwSchema; s != "" && !strings.HasPrefix(s, "MB:") {
		return refuse("memBwSchema %q: want a line that begins with MB:", s)
	}
	for _, l := range slices.Concat(writes(want)...) {
		if _, err := parseLine(l); err != nil {
			return err
		}
	}
	return nil
}

func refuse(format string, args ...any) error {
	return errclass.Errorf(errdefs.ErrInvalidArgument, "linux.intelRdt."+format, args...)
}

// checkName refuses names of classes that are no directory's, or the kernel's own.
func checkName(name string) error {
	switch name {
	case "", defaultClass:
		return nil
	case ".", "..", "info", "mon_groups", "mon_data":
		return refuse("closID %q is a name of the kernel's own", name)
	}
	if strings.ContainsAny(name, "/\n") {
		return refuse("closID %q: want a name without / and newlines, or / alone", name)
	}
	return nil
}

// writes are the lines for the file schemata, as they are written together. The
// kernel takes or refuses what is written at once as a whole, and no resource
// twice in it; the specification lets the list overrule the two fields.
func writes(want *specs.LinuxIntelRdt) [][]string {
	var fields []string
	for _, l := range []string{want.L3CacheSchema, want.MemBwSchema} {
		if l != "" {
			fields = append(fields, l)
		}
	}
	return slices.DeleteFunc([][]string{fields, want.Schemata}, func(lines []string) bool { return len(lines) == 0 })
}

// line is a resource's share in each of its domains: the text after "=", by the
// domain's number.
type line struct {
	resource string
	shares   map[string]string
}

// parseLine takes "L3:0=7ff;1=7f" apart.
func parseLine(text string) (line, error) {
	l := line{shares: map[string]string{}}
	resource, rest, ok := strings.Cut(text, ":")
	l.resource = strings.TrimSpace(resource)
	if !ok || l.resource == "" || strings.ContainsAny(text, "\n") {
		return l, refuse("schemata %q: want one line RESOURCE:DOMAIN=SHARE;…", text)
	}
	for share := range strings.SplitSeq(rest, ";") {
		domain, value, ok := strings.Cut(strings.TrimSpace(share), "=")
		if !ok || domain == "" || value == "" {
			return l, refuse("schemata %q: %q is not DOMAIN=SHARE", text, share)
		}
		l.shares[plain(domain)] = plain(value)
	}
	return l, nil
}

// plain is a number without the spaces and noughts before it that the kernel pads
// with.
func plain(number string) string {
	n := strings.TrimLeft(strings.TrimSpace(strings.ToLower(number)), "0")
	if n == "" {
		return "0"
	}
	return n
}

// missing is the first of the lines that a class's schemata does not have as they
// are, and what it has in its place.
func missing(want []string, schemata string) (lacks, has string, err error) {
	there := map[string]line{}
	for text := range strings.Lines(schemata) {
		if l, err := parseLine(strings.TrimSpace(text)); err == nil {
			there[l.resource] = l
		}
	}
	for _, text := range want {
		l, err := parseLine(text)
		if err != nil {
			return "", "", err
		}
		its, ok := there[l.resource]
		if !ok {
			return text, "no " + l.resource, nil
		}
		for domain, share := range l.shares {
			if its.shares[domain] != share {
				return text, its.String(), nil
			}
		}
	}
	return "", "", nil
}

// String is the line as it is written, its domains in order.
func (l line) String() string {
	var b strings.Builder
	for _, d := range sortedNumbers(maps.Keys(l.shares)) {
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, "%s=%s", d, l.shares[d])
	}
	return l.resource + ":" + b.String()
}
