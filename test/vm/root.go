package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rootFormat changes when the image is made in another way.
const rootFormat = "4"

// unit runs the tests where systemd is pid 1. It is as gantry's own unit: the
// tests make cgroups of their own and kill what they started themselves.
const unit = `[Unit]
Description=tests of gantry
After=multi-user.target apparmor.service dbus.service
Wants=dbus.service

[Service]
Type=simple
ExecStart=/vm/guest run /vm/manifest.json
Delegate=yes
KillMode=process
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=0

[Install]
WantedBy=graphical.target
`

// packages are those of the root image, with the reason.
func packages() [][2]string {
	return [][2]string{
		{"systemd-sysv", "pid 1"},
		{"dbus", "transient units are asked for over the bus"},
		{"udev", "devices as on a real machine"},
		{"kmod", "modules that the kernel asks for"},
		{"apparmor", "profiles are loaded by its parser"},
		{"busybox-static", "the root filesystem of test containers"},
		{"iproute2", "looking at links and namespaces from outside"},
		{"nftables", "looking at rules from outside"},
		{"iputils-ping", "asking whether containers reach each other"},
		{"e2fsprogs", "filesystems on loop images"},
		{"procps", "looking at processes from outside"},
		{"skopeo", "images made and read by a tool that is not ours"},
		{"umoci", "images made and read by a tool that is not ours"},
		{"gcc", "tests compile the shim and the programs they watch"},
		{"libc6-dev", "tests compile the shim and the programs they watch"},
		{"make", "tests compile the programs as the Makefile does"},
		{"podman", "runs containers with our runtime"},
		{"containerd", "runs containers with our runtime"},
		{"crun", "a runtime to compare with"},
		{"python3-grpcio", "the example driver in Python"},
		{"python3-protobuf", "the example driver in Python"},
	}
}

// image is what machines boot from.
type image struct {
	root    string              // an ext4 file
	modules map[string][]string // by kernel: files to load before the root, in their order
}

// early are the modules that reach the disks and the virtio ports.
func early() []string {
	return []string{"virtio_pci", "virtio_blk", "virtio_console", "ext4", "crc32c_generic"}
}

// rootImage makes the image, unless the cache has it.
func rootImage(ctx context.Context, cache string, ks []kernel) (image, error) {
	from, err := configured(ctx)
	if err != nil {
		return image{}, err
	}
	codename, err := release()
	if err != nil {
		return image{}, err
	}
	base, err := baseTree(ctx, cache, from, codename)
	if err != nil {
		return image{}, err
	}
	key := []string{base}
	for _, k := range ks {
		key = append(key, k.version)
	}
	dir := filepath.Join(cache, "image-"+digest(key))
	if _, err := os.Stat(dir); err != nil {
		if err := makeImage(ctx, dir, base, ks); err != nil {
			return image{}, err
		}
	}
	img := image{root: filepath.Join(dir, "root.ext4"), modules: map[string][]string{}}
	for _, k := range ks {
		if img.modules[k.version], err = filepath.Glob(filepath.Join(dir, "early-"+k.version, "*.ko*")); err != nil {
			return image{}, err
		}
	}
	return img, nil
}

func digest(parts []string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:6])
}

// baseTree is the distribution without a kernel, as a tar archive.
func baseTree(ctx context.Context, cache string, from []source, codename string) (string, error) {
	var names, lines []string
	for _, p := range packages() {
		names = append(names, p[0])
	}
	for _, s := range from {
		lines = append(lines, s.line())
	}
	key := append(append([]string{rootFormat, codename}, names...), lines...)
	path := filepath.Join(cache, "base-"+digest(key)+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	progress("packages of the root image")
	// "=" in the name keeps mmdebstrap from guessing a compression.
	args := []string{"--mode=root", "--variant=minbase", "--format=tar", "--skip=check/empty",
		"--aptopt=Acquire::Retries \"2\"", "--include=" + strings.Join(names, ","), codename, path + ".part", "-"}
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, tail(out))
	}
	return path, os.Rename(path+".part", path)
}

// makeImage unpacks the base, adds modules and what is ours, and writes it as a
// filesystem. Nothing is mounted for that.
func makeImage(ctx context.Context, dir, base string, ks []kernel) error {
	progress("root image")
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	root := filepath.Join(part, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if _, err := output(ctx, "tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xf", base); err != nil {
		return err
	}
	for _, k := range ks {
		if err := addModules(ctx, part, root, k); err != nil {
			return fmt.Errorf("modules of %s: %w", k.version, err)
		}
	}
	if err := ours(root); err != nil {
		return err
	}
	disk := filepath.Join(part, "root.ext4")
	if _, err := output(ctx, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^metadata_csum_seed,^orphan_file",
		"-d", root, disk, "8G"); err != nil {
		return err
	}
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// ours puts the few files in that differ from a fresh installation.
func ours(root string) error {
	const wants = "etc/systemd/system/graphical.target.wants"
	for _, d := range []string{"vm", wants} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	id := sha256.Sum256([]byte("gantry test machine"))
	for name, text := range map[string]string{
		"etc/systemd/system/gantry-vm.service": unit,
		"etc/machine-id":                       hex.EncodeToString(id[:16]) + "\n",
		"etc/hostname":                         "vm\n",
		"etc/hosts":                            "127.0.0.1 localhost vm\n::1 localhost\n",
		"etc/resolv.conf":                      "nameserver 127.0.0.1\n",
	} {
		path := filepath.Join(root, name)
		_ = os.Remove(path) // it may be a link
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("../gantry-vm.service", filepath.Join(root, wants, "gantry-vm.service")); err != nil {
		return err
	}
	// What would only cost time in a machine that lives for minutes.
	for _, name := range []string{"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
		"e2scrub_reap.service", "fstrim.timer", "getty.target", "systemd-timesyncd.service", "podman.service",
		"podman-restart.service", "podman-auto-update.timer", "containerd.service", "systemd-networkd-wait-online.service"} {
		path := filepath.Join(root, "etc/systemd/system", name)
		_ = os.Remove(path)
		if err := os.Symlink("/dev/null", path); err != nil {
			return err
		}
	}
	return nil
}

// addModules copies the modules that a machine without hardware can use, and
// lays aside those which it needs before it has its root.
func addModules(ctx context.Context, part, root string, k kernel) error {
	from, err := k.modulesDir()
	if err != nil {
		return err
	}
	to := filepath.Join(root, "lib/modules", k.version)
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			if !useful(rel) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copyFile(path, filepath.Join(to, rel))
	})
	if err != nil {
		return err
	}
	// The machine's own depmod, as this one may have none.
	if _, err := output(ctx, "chroot", root, "depmod", k.version); err != nil {
		return err
	}
	return layAside(ctx, to, filepath.Join(part, "early-"+k.version))
}

// useful says whether a folder of modules can matter in a machine of virtio
// devices.
func useful(rel string) bool {
	rest, ok := strings.CutPrefix(rel, "kernel/drivers/")
	if !ok {
		return rel != "kernel/sound"
	}
	first, _, _ := strings.Cut(rest, "/")
	switch first {
	case "virtio", "block", "char", "md", "vhost", "dax", "nvdimm", "crypto", "rtc":
		return true
	case "net":
		return !strings.Contains(rest, "/ethernet") && !strings.Contains(rest, "/wireless") && !strings.Contains(rest, "/usb")
	}
	return false
}

// layAside copies the early modules and what they depend on, named so that
// their order is the order of loading.
func layAside(ctx context.Context, modules, to string) error {
	b, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return err
	}
	path, needs := map[string]string{}, map[string][]string{}
	for line := range strings.Lines(string(b)) {
		file, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		name, _, _ := strings.Cut(filepath.Base(file), ".ko")
		path[strings.ReplaceAll(name, "-", "_")] = file
		needs[file] = strings.Fields(deps)
	}
	var order []string
	done := map[string]bool{}
	for _, name := range early() {
		file, ok := path[name]
		if !ok {
			continue // built in; if it is not, the machine says what it lacks
		}
		// modules.dep names all dependencies, the deepest last.
		for i := len(needs[file]) - 1; i >= 0; i-- {
			order = appendOnce(order, done, needs[file][i])
		}
		order = appendOnce(order, done, file)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for i, file := range order {
		name := filepath.Join(to, fmt.Sprintf("%02d-%s", i, filepath.Base(file)))
		if err := copyFile(filepath.Join(modules, file), name); err != nil {
			return err
		}
		if strings.HasSuffix(name, ".xz") {
			if _, err := output(ctx, "xz", "-d", name); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendOnce(order []string, done map[string]bool, file string) []string {
	if done[file] {
		return order
	}
	done[file] = true
	return append(order, file)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := out.ReadFrom(in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
