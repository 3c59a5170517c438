package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// weaken makes the programs with switches that test/escape has its controls of:
// the machines have no Go, and where they are translated a C compiler takes a
// minute for each.
func (st *staged) weaken(ctx context.Context, dir string) error {
	if !slices.ContainsFunc(st.manifest.Packages, func(p wire.Package) bool { return p.Path == "test/escape" }) {
		return nil
	}
	if err := compile(ctx, "build", "-trimpath", "-tags", "weakened", "-o", dir+"/", "./cmd/gantry-oci", "./cmd/gantry-drivers"); err != nil {
		return err
	}
	const pauses = "TEST_PAUSES"
	shims := [][]string{{pauses}}
	files, err := filepath.Glob(filepath.Join(st.root, "test/escape/*_test.go"))
	if err != nil {
		return err
	}
	class := regexp.MustCompile(`shim: "(WEAKEN_\w+)",( pauses: true)?`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range class.FindAllStringSubmatch(string(text), -1) {
			if m[2] == "" {
				shims = append(shims, []string{m[1]})
			} else {
				shims = append(shims, []string{pauses, m[1]})
			}
		}
	}
	for _, defines := range shims {
		if err := makeShim(ctx, st.root, dir, defines); err != nil {
			return err
		}
	}
	return nil
}

// makeShim compiles one, unless it is there.
func makeShim(ctx context.Context, root, dir string, defines []string) error {
	name, extra := "gantry-shim", "SHIM_EXTRA="
	for _, d := range defines {
		name += "-" + d
		extra += "-D" + d + " "
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if _, err := output(ctx, "make", "-s", "-C", root, "BIN="+filepath.Join(dir, "make"), extra, filepath.Join(dir, "make/gantry-shim")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "make/gantry-shim"), path)
}
