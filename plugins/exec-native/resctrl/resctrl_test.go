package resctrl

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// A plain directory stands for the kernel's file system: what is asked of the
// kernel are names of directories and lines of files.

// machine is a file system with the default class and one that an operator made.
func machine(t *testing.T) Root {
	t.Helper()
	r := Root(t.TempDir())
	for name, text := range map[string]string{
		"schemata": "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n", "tasks": "", "mon_groups/x/tasks": "",
		"gold/schemata": "    MB:0= 50;1=100\n    L3:0=0ff;1=700\n", "gold/tasks": "", "gold/mon_groups/x/tasks": "",
	} {
		write(t, filepath.Join(string(r), name), text)
	}
	return r
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMake holds each rule of the specification about classes.
func TestMake(t *testing.T) {
	type rdt = specs.LinuxIntelRdt
	for name, c := range map[string]struct {
		want     rdt
		class    Class
		schemata string // of the class afterwards
		refused  error  // its class
		says     string
	}{
		"own":             {rdt{}, Class{Name: "c1", Own: true}, "", nil, ""},
		"own with shares": {rdt{MemBwSchema: "MB:0=20", L3CacheSchema: "L3:0=f"}, Class{Name: "c1", Own: true}, "L3:0=f\nMB:0=20\n", nil, ""},
		"list is last":    {rdt{L3CacheSchema: "L3:0=f", Schemata: []string{"L2:0=3", "L3:0=ff"}}, Class{Name: "c1", Own: true}, "L3:0=f\nL2:0=3\nL3:0=ff\n", nil, ""},
		"new by name":     {rdt{ClosID: "new", Schemata: []string{"MB:0=10"}}, Class{Name: "new"}, "MB:0=10\n", nil, ""},
		"there":           {rdt{ClosID: "gold"}, Class{Name: "gold"}, "    MB:0= 50;1=100\n    L3:0=0ff;1=700\n", nil, ""},
		"there, the same": {rdt{ClosID: "gold", L3CacheSchema: "L3:0=FF;1=700", MemBwSchema: "MB:0=50"}, Class{Name: "gold"}, "    MB:0= 50;1=100\n    L3:0=0ff;1=700\n", nil, ""},
		"default":         {rdt{ClosID: "/"}, Class{Name: "/"}, "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n", nil, ""},
		"counted":         {rdt{ClosID: "gold", EnableMonitoring: true}, Class{Name: "gold", Monitor: "c1"}, "    MB:0= 50;1=100\n    L3:0=0ff;1=700\n", nil, ""},
		"counted among all": {rdt{ClosID: "/", EnableMonitoring: true}, Class{Name: "/", Monitor: "c1"},
			"    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n", nil, ""},
		"not there":     {want: rdt{ClosID: "silver"}, refused: errdefs.ErrInvalidArgument, says: "class silver is not there"},
		"there, other":  {want: rdt{ClosID: "gold", MemBwSchema: "MB:0=60"}, refused: errdefs.ErrFailedPrecondition, says: "MB:0=50;1=100, not with MB:0=60"},
		"there, none":   {want: rdt{ClosID: "gold", Schemata: []string{"L2:0=1"}}, refused: errdefs.ErrFailedPrecondition, says: "no L2"},
		"host's own":    {want: rdt{ClosID: "/", MemBwSchema: "MB:0=60"}, refused: errdefs.ErrFailedPrecondition, says: "class /"},
		"kernel's name": {want: rdt{ClosID: "info"}, refused: errdefs.ErrInvalidArgument, says: `closID "info"`},
		"outside":       {want: rdt{ClosID: "../x"}, refused: errdefs.ErrInvalidArgument, says: `closID "../x"`},
		"two lines":     {want: rdt{Schemata: []string{"L3:0=f\nMB:0=1"}}, refused: errdefs.ErrInvalidArgument, says: "want one line"},
		"no share":      {want: rdt{L3CacheSchema: "L3:0"}, refused: errdefs.ErrInvalidArgument, says: `"0" is not DOMAIN=SHARE`},
		"no bandwidth":  {want: rdt{MemBwSchema: "L3:0=f"}, refused: errdefs.ErrInvalidArgument, says: "memBwSchema"},
		"cannot be counted": {want: rdt{EnableMonitoring: true}, // a class of a plain directory has no mon_groups
			refused: os.ErrNotExist, says: "enableMonitoring"},
	} {
		t.Run(name, func(t *testing.T) {
			r := machine(t)
			class, err := r.Make("c1", &c.want)
			if c.refused != nil {
				if !errors.Is(err, c.refused) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v, want %q (%v)", err, c.says, c.refused)
				}
				for _, left := range []string{"c1", "silver", "mon_groups/c1"} {
					if _, err := os.Lstat(filepath.Join(string(r), left)); err == nil {
						t.Errorf("%s is left", left)
					}
				}
				return
			}
			if err != nil || class != c.class {
				t.Fatalf("%+v %v, want %+v", class, err, c.class)
			}
			if c.schemata != "" && read(t, r.schemata(class)) != c.schemata {
				t.Errorf("schemata %q, want %q", read(t, r.schemata(class)), c.schemata)
			}
			if c.schemata == "" {
				if _, err := os.Lstat(r.schemata(class)); err == nil {
					t.Error("schemata was written, and nobody asked for it")
				}
			}
		})
	}
}

// TestOwnIsNotShared: another's class of the container's name is no class for it.
func TestOwnIsNotShared(t *testing.T) {
	r := machine(t)
	if _, err := r.Make("gold", &specs.LinuxIntelRdt{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
	if read(t, string(r), "gold/schemata") == "" {
		t.Error("it is gone")
	}
}

// TestKernelsWords: what the kernel says about a refusal is told.
func TestKernelsWords(t *testing.T) {
	r := machine(t)
	write(t, string(r)+"/info/last_cmd_status", "Mask f0f has non-consecutive 1-bits\n")
	err := r.write(Class{Name: "nosuch"}, []string{"L3:0=f0f"})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "the kernel says: Mask f0f has non-consecutive 1-bits") {
		t.Errorf("%v", err)
	}
}

// TestLife: enter, change, remove; others' classes stay.
func TestLife(t *testing.T) {
	r := machine(t)
	c, err := r.Make("c1", &specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true})
	if err != nil {
		t.Fatal(err)
	}
	files, err := r.Tasks(c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimPrefix(f.Name(), string(r)))
		f.Close()
	}
	if want := []string{"/gold/tasks", "/gold/mon_groups/c1/tasks"}; !reflect.DeepEqual(names, want) {
		t.Errorf("%v, want the class before its group, %v", names, want)
	}
	if err := r.Update(c, "", "MB:0=30"); err != nil || !strings.HasSuffix(read(t, r.schemata(c)), "\nMB:0=30\n") {
		t.Errorf("%v %q", err, read(t, r.schemata(c)))
	}
	if err := r.Update(c, "L3", ""); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("%v", err)
	}
	_ = os.Remove(r.monitor(c) + "/tasks") // the kernel's files go with their directory
	for range 2 {
		if err := r.Remove(c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(r.monitor(c)); err == nil {
		t.Error("its group is left")
	}
	if _, err := os.Lstat(r.dir(c)); err != nil {
		t.Error("a class that it was given is gone")
	}
	own, err := r.Make("c2", &specs.LinuxIntelRdt{})
	if err == nil {
		err = r.Remove(own)
	}
	if _, statErr := os.Lstat(r.dir(own)); err != nil || statErr == nil {
		t.Errorf("own class: %v, %v", err, statErr)
	}
}

// TestRead: what is counted for the container alone, and words for numbers.
func TestRead(t *testing.T) {
	r := machine(t)
	c := Class{Name: "gold", Monitor: "c1"}
	for name, text := range map[string]string{
		"mon_L3_00/llc_occupancy": "4096\n", "mon_L3_00/mbm_total_bytes": "70\n", "mon_L3_00/mbm_local_bytes": "7\n",
		"mon_L3_01/llc_occupancy": "Unavailable\n",
	} {
		write(t, filepath.Join(r.monitor(c), "mon_data", name), text)
	}
	got, err := r.Read(c)
	if err != nil || len(got) != 2 || got[0].Name != "L3_00" || *got[0].Occupancy != 4096 || *got[0].Traffic != 70 || got[0].Local != 7 ||
		got[1].Name != "L3_01" || got[1].Occupancy != nil || got[1].Traffic != nil {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := r.Read(Class{Name: "gold"}); got != nil || err != nil {
		t.Errorf("%+v %v of a class that others are in", got, err)
	}
}

// TestPlanned: what is written down before it is made is what Remove then takes away,
// and nothing of what was there.
func TestPlanned(t *testing.T) {
	for name, c := range map[string]struct {
		id   string
		want specs.LinuxIntelRdt
		plan Class
	}{
		"own":                {"c1", specs.LinuxIntelRdt{EnableMonitoring: true}, Class{Name: "c1", Own: true, Monitor: "c1"}},
		"of somebody's name": {"gold", specs.LinuxIntelRdt{}, Class{Name: "gold"}},
		"of a kernel's name": {"mon_groups", specs.LinuxIntelRdt{}, Class{Name: "mon_groups"}},
		"counted elsewhere":  {"x", specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}, Class{Name: "gold"}},
		"counted":            {"c1", specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}, Class{Name: "gold", Monitor: "c1"}},
		"among all":          {"c1", specs.LinuxIntelRdt{ClosID: "/", EnableMonitoring: true}, Class{Name: "/", Monitor: "c1"}},
	} {
		r := machine(t)
		planned := r.Planned(c.id, &c.want)
		if planned != c.plan {
			t.Errorf("%s: %+v", name, planned)
		}
		if err := r.Remove(planned); err != nil {
			t.Errorf("%s: removed before it was made: %v", name, err)
		}
		for _, there := range []string{"gold/mon_groups/x", "mon_groups/x"} {
			if _, err := os.Stat(filepath.Join(string(r), there)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
