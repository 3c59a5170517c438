package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// optionCase is a mount option: of what kind of mount, and what the mount table
// then says of the mount itself and of the one below it. A word that begins with
// "!" must not be there.
type optionCase struct {
	with      []string // options before it
	tmpfs     bool
	top, tree string
}

// optionCases lists every option that "features" tells of.
func optionCases() map[string]optionCase {
	bind, tree := []string{"bind"}, []string{"rbind"}
	cases := map[string]optionCase{
		"bind": {}, "rbind": {}, "defaults": {with: bind}, "silent": {with: bind}, "loud": {with: bind}, "noiversion": {with: bind}, "nomand": {with: bind},
		"sync": {tmpfs: true, top: "sync"}, "async": {tmpfs: true, top: "!sync"}, "dirsync": {tmpfs: true, top: "dirsync"},
		"lazytime": {tmpfs: true, top: "lazytime"}, "nolazytime": {tmpfs: true, top: "!lazytime"}, "tmpcopyup": {tmpfs: true},
		"private": {with: tree, top: "!shared"}, "rprivate": {with: tree, top: "!shared", tree: "!shared"},
		"shared": {with: tree, top: "shared"}, "rshared": {with: tree, top: "shared", tree: "shared"},
		"slave": {with: tree, top: "!shared"}, "rslave": {with: tree, top: "master", tree: "master"},
		"unbindable": {with: tree, top: "unbindable", tree: "!unbindable"}, "runbindable": {with: tree, top: "unbindable", tree: "unbindable"},
	}
	for word, seen := range map[string][2]string{ // set, and cleared after another has set it
		"ro": {"ro", ""}, "rw": {"rw", "ro"}, "nosuid": {"nosuid", ""}, "suid": {"!nosuid", "nosuid"}, "nodev": {"nodev", ""}, "dev": {"!nodev", "nodev"},
		"noexec": {"noexec", ""}, "exec": {"!noexec", "noexec"}, "nodiratime": {"nodiratime", ""}, "diratime": {"!nodiratime", "nodiratime"},
		"nosymfollow": {"nosymfollow", ""}, "symfollow": {"!nosymfollow", "nosymfollow"}, "noatime": {"noatime", ""}, "atime": {"relatime", "noatime"},
		"strictatime": {"!relatime", ""}, "nostrictatime": {"relatime", "strictatime"}, "relatime": {"relatime", "noatime"}, "norelatime": {"relatime", "noatime"},
	} {
		one, all := optionCase{with: tree, top: seen[0]}, optionCase{with: tree, top: seen[0], tree: seen[0]}
		if seen[1] != "" {
			one.with, all.with = append(slices.Clone(tree), seen[1]), append(slices.Clone(tree), "r"+seen[1])
		}
		cases[word], cases["r"+word] = one, all
	}
	return cases
}

// optionsAt are the words that the mount table has about a place: of the mount,
// of its propagation, and (of a tmpfs) of the file system.
func optionsAt(table, at string, fileSystem bool) []string {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 || f[4] != at {
			continue
		}
		words := strings.Split(f[5], ",")
		end := slices.Index(f, "-")
		for _, w := range f[6:end] {
			words = append(words, w[:strings.Index(w+":", ":")])
		}
		if fileSystem {
			words = append(words, strings.Split(f[end+3], ",")...)
		}
		return words
	}
	return nil
}

// TestMountOptions sees every option of mounts from inside and from outside.
func TestMountOptions(t *testing.T) {
	cases := optionCases()
	for _, o := range oci.MountOptions() {
		if _, ok := cases[o]; !ok && o != "idmap" && o != "ridmap" && o != "remount" { // TestIDMaps, TestFields
			t.Errorf("no test of option %s", o)
		}
	}
	source := t.TempDir()
	for _, d := range []string{source, source + "/below"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", d, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(d, unix.MNT_DETACH)
		if err := unix.Mount("", d, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
		_ = os.Mkdir(source+"/below", 0o755)
	}
	b := newBox(t, "cat /proc/self/mountinfo; sleep 100")
	for name, c := range cases {
		m := specs.Mount{Destination: "/o/" + name, Type: "bind", Source: source, Options: append(slices.Clone(c.with), name)}
		if c.tmpfs {
			m.Type, m.Source = "tmpfs", "tmpfs"
		}
		b.addMount(m)
	}
	path := b.start()
	outside := proc("mountinfo")(t, b.state().PID)
	awaitText(t, path, "/proc/sys")
	inside, _ := os.ReadFile(path)
	for name, c := range cases {
		for side, table := range map[string]string{"inside": string(inside), "outside": outside} {
			for at, want := range map[string]string{"/o/" + name: c.top, "/o/" + name + "/below": c.tree} {
				words := optionsAt(table, at, c.tmpfs)
				not, isNot := strings.CutPrefix(want, "!")
				if want != "" && (len(words) == 0 || slices.Contains(words, not) == isNot) {
					t.Errorf("%s, %s: want %q of %s: %q", name, side, want, at, words)
				}
			}
			if len(optionsAt(table, "/o/"+name, false)) == 0 {
				t.Errorf("%s, %s: it is not there", name, side)
			}
		}
	}
}

// before reports whether this kernel is older than a version.
func before(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	var a, b int
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a < major || a == major && b < minor
}

// TestIDMaps: the mount's alone, and with those below it.
func TestIDMaps(t *testing.T) {
	if before(t, 6, 3) {
		t.Skip("a tmpfs takes no map before Linux 6.3")
	}
	source := t.TempDir()
	if err := unix.Mount("tmpfs", source, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(source, unix.MNT_DETACH)
	below := filepath.Join(source, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(below, unix.MNT_DETACH)
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 4242, Size: 10}}
	for option, want := range map[string]string{"idmap": "4242\n0\n", "ridmap": "4242\n4242\n"} {
		b := newBox(t, "stat -c %u /m /m/below; sleep 100")
		b.addMount(specs.Mount{Destination: "/m", Type: "bind", Source: source, Options: []string{"rbind", option}, UIDMappings: maps, GIDMappings: maps})
		path := b.start()
		awaitText(t, path, want)
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/root/m", b.state().PID), &st); err != nil || st.Uid != 4242 || st.Gid != 4242 {
			t.Errorf("%s from outside: %d:%d %v", option, st.Uid, st.Gid, err)
		}
		if err := unix.Stat(source, &st); err != nil || st.Uid != 0 {
			t.Errorf("%s: the host's own has changed: %d %v", option, st.Uid, err)
		}
	}
}
