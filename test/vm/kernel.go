package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is an unpacked package of Debian.
type kernel struct {
	version string // as uname -r says it
	suite   string
	dir     string // boot/vmlinuz-VERSION and lib/modules/VERSION are below it
}

// image is the kernel's program, at one of the places that packages use.
func (k kernel) image() (string, error) {
	return k.find("boot/vmlinuz-"+k.version, "usr/lib/modules/"+k.version+"/vmlinuz", "usr/lib/linux-image-"+k.version+"/vmlinuz")
}

// modulesDir is where the modules are: /usr/lib in packages of merged systems.
func (k kernel) modulesDir() (string, error) {
	return k.find("usr/lib/modules/"+k.version, "lib/modules/"+k.version)
}

// find is the first of those that is there.
func (k kernel) find(names ...string) (string, error) {
	for _, name := range names {
		path := filepath.Join(k.dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the kernel's packages hold no %s", strings.Join(names, " and no "))
}

// wish is a kernel that would be good to have.
type wish struct {
	name  string
	from  []source
	needs bool // without it there is nothing to test
}

// wishes are the distribution's own kernel, that of its backports, and that of
// the backports of the release that is stable now.
func wishes(from []source, codename string) []wish {
	all := []wish{{name: codename, from: from, needs: true}}
	for _, s := range from {
		if s.suite != codename {
			continue
		}
		for _, suite := range []string{codename + "-backports", "stable-backports"} {
			all = append(all, wish{name: suite, from: []source{{s.uri, suite, s.component}}})
		}
		break
	}
	return all
}

// kernels fetches those that are wished for, and says which were not reached.
func kernels(ctx context.Context, o options) (got []kernel, missing []string, err error) {
	from, err := configured(ctx)
	if err != nil {
		return nil, nil, err
	}
	codename, err := release()
	if err != nil {
		return nil, nil, err
	}
	for _, w := range wishes(from, codename) {
		k, err := fetchKernel(ctx, o.cache, w)
		if err != nil && w.needs {
			return nil, nil, fmt.Errorf("fetch the kernel of %s: %w", w.name, err)
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("the kernel of %s: %v", w.name, err))
			continue
		}
		if !slices.ContainsFunc(got, func(g kernel) bool { return g.version == k.version }) {
			got = append(got, k)
		}
	}
	return got, missing, nil
}

// chosen are those that the flags ask for.
func chosen(all []kernel, o options) ([]kernel, error) {
	ks := slices.DeleteFunc(slices.Clone(all), func(k kernel) bool { return !wanted(o.kernels, k.version) })
	if len(ks) == 0 {
		return nil, fmt.Errorf("no kernel begins with %s", strings.Join(o.kernels, " or "))
	}
	return ks, nil
}

func wanted(prefixes []string, version string) bool {
	if len(prefixes) == 0 {
		return true
	}
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return version == p || strings.HasPrefix(version, p) && !isDigit(version[len(p)])
	})
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// fetchKernel downloads and unpacks a suite's newest kernel, once.
func fetchKernel(ctx context.Context, cache string, w wish) (kernel, error) {
	a, err := openArchive(ctx, filepath.Join(cache, "apt-"+w.name), w.from)
	if err != nil {
		return kernel{}, err
	}
	const prefix = "linux-image-"
	name, err := a.dependency(ctx, prefix+"amd64", prefix)
	if err != nil {
		return kernel{}, err
	}
	k := kernel{version: strings.TrimPrefix(name, prefix), suite: w.name}
	k.dir = filepath.Join(cache, "kernel-"+k.version)
	if _, err := os.Stat(k.dir); err == nil {
		return k, nil
	}
	progress("kernel %s of %s", k.version, k.suite)
	// Newer packages are split: the image's only depends on those that have it.
	names := []string{name}
	for _, part := range []string{"linux-binary-", "linux-modules-"} {
		if dep, err := a.dependency(ctx, name, part); err == nil {
			names = append(names, dep)
		}
	}
	part := k.dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return kernel{}, err
	}
	for _, n := range names {
		if err := a.unpack(ctx, n, part); err != nil {
			return kernel{}, err
		}
	}
	if err := os.Rename(part, k.dir); err != nil {
		return kernel{}, err
	}
	if _, err := k.modulesDir(); err != nil {
		return kernel{}, err
	}
	_, err = k.image()
	return k, err
}
