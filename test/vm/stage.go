package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

const module = "github.com/gantryd/gantry/"

// patterns are the packages with tests that ask something of the kernel.
func patterns() []string {
	return []string{"./internal/linux/...", "./internal/peercred", "./internal/stdio", "./plugins/...", "./driverhost/...",
		"./sdk/...", "./cmd/...", "./eventlog", "./bus/server", "./test/rig", "./test/e2e", "./test/escape", "./test/hard"}
}

// leftOut are packages that do not run in machines, with the reason. Where qemu
// translates, long work that is the same on all kernels stays out too: there it
// takes ten times as long.
func leftOut(fast bool) map[string]string {
	out := map[string]string{"sdk/conform/report": "builds drivers with the Go toolchain, which the machines do not have"}
	if !fast {
		const same = "computes what is the same on every kernel, too long where qemu translates"
		for _, p := range []string{"plugins/image-oci", "sdk/imagedriver/imagetest", "sdk/layertar", "sdk/layerstore", "plugins/graphdriver-vfs",
			"sdk/graphdriver", "sdk/graphdriver/graphtest", "sdk/execdriver/exectest", "sdk/netdriver/nettest", "eventlog", "bus/server"} {
			out[p] = same
		}
	}
	return out
}

// staged is the tree with its compiled tests.
type staged struct {
	root     string // the module's directory here, and in the machines too
	disk     string // an ext4 image: guest, manifest.json, tests/, tree/
	guest    string
	manifest wire.Manifest
	unbuilt  map[string]string   // packages that do not compile, with what the compiler says
	tests    map[string][]string // by package: the names of the tests in its sources
	commit   string
	leftOut  map[string]string // packages that were not asked for by name and stay out
}

// listed is what go list tells of a package.
type listed struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

// buildGuest compiles what runs in the machines.
func buildGuest(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "disk/guest")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, compile(ctx, "build", "-trimpath", "-o", path, "./test/vm/guest")
}

// stage compiles the tests and puts them and the tree on a disk; where nothing
// is to be run it only finds their names.
func stage(ctx context.Context, dir string, o options, fast, nothing bool) (*staged, error) {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	st := &staged{root: strings.TrimSpace(root), unbuilt: map[string]string{}, tests: map[string][]string{}, guest: filepath.Join(dir, "disk/guest"), leftOut: leftOut(fast)}
	if head, err := output(ctx, "git", "-C", st.root, "rev-parse", "--short=12", "HEAD"); err == nil {
		st.commit = strings.TrimSpace(head)
	}
	tests := filepath.Join(dir, "disk/tests")
	if err := os.MkdirAll(tests, 0o755); err != nil {
		return nil, err
	}
	pkgs, err := st.testPackages(ctx, o)
	if err != nil {
		return nil, err
	}
	st.manifest = wire.Manifest{Root: st.root, Run: o.run, Skip: o.skip, Each: o.each, Short: !fast}
	if nothing {
		return st, st.nameAll(pkgs)
	}
	progress("compiling the tests of %d packages", len(pkgs))
	for _, p := range pkgs {
		if err := st.add(ctx, tests, p); err != nil {
			st.unbuilt[strings.TrimPrefix(p.ImportPath, module)] = err.Error()
			progress("does not compile: %s", p.ImportPath)
		}
	}
	if len(st.manifest.Packages) == 0 {
		return nil, errors.New("no tests")
	}
	return st, st.makeDisk(ctx, dir)
}

// nameAll notes packages and tests without compiling them.
func (st *staged) nameAll(pkgs []listed) error {
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		names, err := testNames(p)
		if err != nil {
			return err
		}
		st.tests[name] = names
		st.manifest.Packages = append(st.manifest.Packages, wire.Package{Path: name})
	}
	return nil
}

// add compiles the tests of a package into a directory and notes them.
func (st *staged) add(ctx context.Context, dir string, p listed) error {
	name := strings.TrimPrefix(p.ImportPath, module)
	names, err := testNames(p)
	if err != nil {
		return err
	}
	st.tests[name] = names
	binary := strings.ReplaceAll(name, "/", "_") + ".test"
	if err := compile(ctx, "test", "-c", "-ldflags", "-s -w", "-o", filepath.Join(dir, binary), p.ImportPath); err != nil {
		return err
	}
	st.manifest.Packages = append(st.manifest.Packages, wire.Package{Path: name, Dir: p.Dir, Binary: "tests/" + binary})
	return nil
}

// compile runs the go command for programs that need nothing of the machine
// they run on.
func compile(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, tail(out))
	}
	return nil
}

func (st *staged) testPackages(ctx context.Context, o options) ([]listed, error) {
	which := o.packages
	if len(which) > 0 {
		st.leftOut = nil // who names a package means it
	} else {
		which = patterns()
	}
	out, err := output(ctx, "go", append([]string{"list", "-e", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, which...)...)
	if err != nil {
		return nil, err
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err != nil {
			break // the end
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 && st.leftOut[strings.TrimPrefix(p.ImportPath, module)] == "" {
			all = append(all, p)
		}
	}
	return all, nil
}

// testNames are the tests in a package's sources: asking the compiled program
// would run its TestMain.
func testNames(p listed) ([]string, error) {
	var names []string
	for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" {
				names = append(names, fn.Name.Name)
			}
		}
	}
	return names, nil
}

// makeDisk copies the tree beside the tests and makes a filesystem of them.
func (st *staged) makeDisk(ctx context.Context, dir string) error {
	b, err := json.Marshal(st.manifest)
	if err != nil {
		return err
	}
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(filepath.Join(disk, "manifest.json"), b, 0o644); err != nil {
		return err
	}
	out, err := output(ctx, "git", "-C", st.root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
		if err := copyInto(st.root, filepath.Join(disk, "tree"), name); err != nil {
			return err
		}
	}
	programs, err := os.ReadDir(filepath.Join(st.root, "bin"))
	if err != nil {
		return fmt.Errorf("the programs are not built: %w", err)
	}
	for _, p := range programs {
		if err := copyInto(st.root, filepath.Join(disk, "tree"), "bin/"+p.Name()); err != nil {
			return err
		}
	}
	if err := st.weaken(ctx, filepath.Join(disk, wire.Weak)); err != nil {
		return fmt.Errorf("programs with switches: %w", err)
	}
	st.disk = filepath.Join(dir, "tests.ext4")
	_, err = output(ctx, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", disk, st.disk, "3G")
	return err
}

// copyInto copies one file or link of the tree. One that went away meanwhile is
// not missed: somebody is working there.
func copyInto(from, to, name string) error {
	src, dst := filepath.Join(from, name), filepath.Join(to, name)
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(src)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(target, dst)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	return copyFile(src, dst)
}
