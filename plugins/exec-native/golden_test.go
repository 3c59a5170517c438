package execnative

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// testFacts is a machine without CAP_SYS_RESOURCE, on which the user is root.
func testFacts() facts {
	return facts{
		Bounding: 1<<41 - 1 - 1<<24, NofileHard: 1 << 20, Swap: true, CPUs: 2, Hostname: "/run/d/c-1/hostname",
		User: oci.User{Groups: []uint32{0, 10}, Home: "/root"},
	}
}

// testStart is a plain request.
func testStart() execdriver.Start {
	return execdriver.Start{
		Key: execdriver.Key{Container: "c0ffee", Run: 1}, Hostname: "box",
		Rootfs:  []driver.Mount{{Type: "overlay", Target: "/", Options: []string{"lowerdir+=/l", "upperdir=/u", "workdir=/w"}}},
		Process: execdriver.Process{Args: []string{"sh", "-c", "true"}, Env: []string{"A=b"}},
	}
}

// goldenCase is one request with what is opened for it.
type goldenCase struct {
	name  string
	start func(*execdriver.Start)
	facts func(*facts)
	with  func(*handles)
}

func goldenCases() []goldenCase {
	return []goldenCase{
		{name: "default"},
		{name: "user-readonly-nnp", start: func(r *execdriver.Start) {
			r.ReadOnly, r.Security.NoNewPrivileges = true, true
			r.Process.Cwd, r.Process.User = "/home/bob/", "bob"
			r.Security.CapAdd, r.Security.CapDrop = []string{"net_admin"}, []string{"CAP_MKNOD", "Chown"}
		}, facts: func(f *facts) {
			f.User = oci.User{UID: 1000, GID: 1001, Groups: []uint32{1001, 10}, Home: "/home/bob"}
		}},
		{name: "privileged", start: func(r *execdriver.Start) {
			r.Security.Privileged = true
			r.Domain = "example"
		}, facts: func(f *facts) {
			mode, id := os.FileMode(0o660), uint32(0)
			f.Devices = []specs.LinuxDevice{{Path: "/dev/vda", Type: "b", Major: 254, Minor: 0, FileMode: &mode, UID: &id, GID: &id}}
		}, with: func(h *handles) { h.Filter = nil }},
		{name: "host-network-limits", start: func(r *execdriver.Start) {
			r.Network.Mode = netdriver.NamespaceHost
			r.Resources = execdriver.Resources{MemoryBytes: 64 << 20, NanoCPUs: 5e8, PidsLimit: 7}
			r.Stdio = execdriver.Stdio{OpenStdin: true, WaitAttach: true}
		}, with: func(h *handles) { h.Flags, h.OOMScore = plan.OpenStdin|plan.WaitAttach, -500 }},
		{name: "joined-network-binds", start: func(r *execdriver.Start) {
			r.Network = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: "/proc/7/fd/3", Inode: 9}
			r.Mounts = []driver.Mount{
				{Type: "bind", Source: "/run/n/resolv.conf", Target: "/etc/resolv.conf", Options: []string{"ro"}},
				{Type: "bind", Source: "/srv/data", Target: "/data", Options: []string{"rbind"}},
				{Type: "tmpfs", Source: "tmpfs", Target: "/dev/shm", Options: []string{"nosuid", "size=1m"}},
			}
		}, with: func(h *handles) { h.Network = 9 }},
		{name: "cgroup-v2", with: func(h *handles) {
			h.CgroupV1, h.CgroupV2, h.Cgroups, h.ShimCgroups = nil, true, nil, nil
		}},
		{name: "co-mounted", with: func(h *handles) { h.CgroupV1 = []string{"cpu,cpuacct", "name=systemd"} }},
	}
}

// TestGoldenSpecsAndPlans pins what requests become. Rewrite with -update and
// read the difference.
func TestGoldenSpecsAndPlans(t *testing.T) {
	for _, c := range goldenCases() {
		t.Run(c.name, func(t *testing.T) {
			r, f := testStart(), testFacts()
			if c.start != nil {
				c.start(&r)
			}
			if c.facts != nil {
				c.facts(&f)
			}
			spec, err := specOf(r, f)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(spec, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "spec-"+c.name+".json", string(text)+"\n")

			h := handles{
				Run: r.Run, ShimCgroups: []plan.FD{1}, ShimDir: 2, Lock: 5, Record: 6, Listen: 7, OOMCounter: 8,
				Handles: oci.Handles{
					Cgroups: []plan.FD{3}, CgroupDir: 4, CgroupV1: []string{"memory", "name=systemd"},
					CgroupMounts: []plan.FD{12, 13}, Network: plan.NoFD, Root: 10, Filter: make([]byte, 16),
				},
				Log: &plan.Log{Dir: 11, Name: "output.log", MaxBytes: 1 << 20, MaxFiles: 3},
			}
			for i, m := range spec.Mounts {
				one := oci.Mount{FD: plan.NoFD}
				if m.Type == "bind" {
					one = oci.Mount{FD: plan.FD(20 + i), IsDir: m.Destination == "/data"}
				}
				h.Mounts = append(h.Mounts, one)
			}
			if h.Programs, err = oci.ProgramPaths(spec.Process); err != nil {
				t.Fatal(err)
			}
			if c.with != nil {
				c.with(&h)
			}
			p, err := planOf(spec, h)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "plan-"+c.name+".txt", render(p))
			if _, err := p.Encode(40); err != nil {
				t.Errorf("encode: %v", err)
			}
		})
	}
}

// render prints a plan, one operation a line.
func render(p *plan.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		optional := ""
		if s.Optional {
			optional = " optional"
		}
		fields := strings.ReplaceAll(fmt.Sprintf("%+v", s.Op), fmt.Sprint(uint32(plan.NoFD)), "none")
		fmt.Fprintf(&b, "%-8v %v%s %s\n", s.Stage, s.Op.Kind(), optional, fields)
	}
	return b.String()
}

// compare checks a text against its file.
func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (rewrite with -update):\n%s", name, firstDifference(string(want), got))
	}
}

// firstDifference shows the first line that differs.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "", ""
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n  want %s\n  got  %s", i+1, a, b)
		}
	}
	return ""
}
