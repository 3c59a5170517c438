package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// keyring is what Debian's suites are signed with (package
// debian-archive-keyring).
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// source is one suite that apt is configured for.
type source struct{ uri, suite, component string }

func (s source) line() string {
	return fmt.Sprintf("deb [signed-by=%s] %s %s %s", keyring, s.uri, s.suite, s.component)
}

// configured are the suites of Debian that apt of this machine knows.
func configured(ctx context.Context) ([]source, error) {
	out, err := output(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	var all []source
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) == 4 && f[0] == "Debian" && f[3] == "main" {
			all = append(all, source{f[1], f[2], f[3]})
		}
	}
	if len(all) == 0 {
		return nil, errors.New("apt knows no suite of Debian (apt-get update?)")
	}
	return all, nil
}

// release is the code name of the distribution that runs here.
func release() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release has no VERSION_CODENAME")
}

// archive asks apt about suites without touching the machine's own lists.
type archive struct {
	dir  string
	args []string
}

// openArchive makes one in dir and reads the suites' lists.
func openArchive(ctx context.Context, dir string, from []source) (*archive, error) {
	for _, d := range []string{"sources", "lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	var lines strings.Builder
	for _, s := range from {
		fmt.Fprintln(&lines, s.line())
	}
	if err := os.WriteFile(filepath.Join(dir, "sources/vm.list"), []byte(lines.String()), 0o644); err != nil {
		return nil, err
	}
	a := &archive{dir: dir, args: []string{
		"-o", "Dir::Etc::sourcelist=/dev/null",
		"-o", "Dir::Etc::sourceparts=" + filepath.Join(dir, "sources"),
		"-o", "Dir::Etc::preferencesparts=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "Acquire::Retries=2",
		"-o", "APT::Sandbox::User=root",
		"-q",
	}}
	_, err := output(ctx, "apt-get", append(slices.Clone(a.args), "update")...)
	return a, err
}

// dependency is the first package that name depends on and that begins with
// prefix: how a meta package says which version is the newest.
func (a *archive) dependency(ctx context.Context, name, prefix string) (string, error) {
	out, err := output(ctx, "apt-cache", append(slices.Clone(a.args), "depends", name)...)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(dep, prefix) && dep != "linux-base" && !strings.HasPrefix(dep, "linux-base-") {
			return dep, nil
		}
	}
	return "", fmt.Errorf("%s depends on no %s…", name, prefix)
}

// download fetches a package and says where it lies.
func (a *archive) download(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append(slices.Clone(a.args), "download", name)...)
	cmd.Dir = a.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", name, err, out)
	}
	found, err := filepath.Glob(filepath.Join(a.dir, name+"_*.deb"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("download %s: nothing came", name)
	}
	return found[len(found)-1], nil
}

// unpack fetches a package and puts its files into a directory.
func (a *archive) unpack(ctx context.Context, name, dir string) error {
	deb, err := a.download(ctx, name)
	if err != nil {
		return err
	}
	defer os.Remove(deb) //nolint:errcheck // it is unpacked
	_, err = output(ctx, "dpkg-deb", "-x", deb, dir)
	return err
}

// output runs a program, and says what it said when it ends badly.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, args[0], err, tail(out), tail(stderr.Bytes()))
	}
	return string(out), nil
}

// tail is the end of a long text.
func tail(b []byte) []byte {
	const most = 2000
	if len(b) > most {
		return b[len(b)-most:]
	}
	return b
}
