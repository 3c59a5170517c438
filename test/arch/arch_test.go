// Package arch holds the rules of docs/ARCHITECTURE.md as tests: who may import
// whom, how large things may be, what must be documented, what is forbidden.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/gantryd/gantry/"

// rule is a line of the table of imports: what the packages below a folder may
// import of ours.
type rule struct {
	folder string
	may    []string
	why    string
}

// rules are matched by the longest folder. "internal" stands for the leaves.
func rules() []rule {
	return []rule{
		{"core", []string{"internal/planted"}, "pure: every behaviour can be replayed without a machine"},
		{"eventlog", []string{"eventlog", "core", "internal"}, "the record knows no bus and no driver"},
		{"bus", []string{"bus", "core", "internal"}, "carries; decides nothing"},
		{"engine", []string{"engine", "core", "eventlog", "bus", "internal"}, "does not know what go-plugin is"},
		{"driverhost", []string{"driverhost", "core", "bus", "sdk", "internal"}, "does not know what a container is for"},
		{"image", []string{"image", "internal"}, "a library for image drivers"},
		{"api", []string{"api"}, "the protocol and what is generated from it"},
		{"sdk", []string{"sdk", "api", "internal/linux", "internal/errclass"}, "what a driver's author needs, no engine in it"},
		{"plugins/image-oci", []string{"plugins/image-oci", "sdk", "image", "internal"}, "a driver"},
		{"plugins", []string{"plugins", "sdk", "internal"}, "a driver knows its contract, not the engine"},
		{"plugins/exec-native/oci", []string{"plugins/exec-native/plan", "plugins/exec-native/resctrl", "plugins/exec-native/weak", "internal"}, "what driver and gantry-oci share: no contract, no gRPC"},
		{"plugins/exec-native/runtime", []string{"plugins/exec-native/oci", "plugins/exec-native/plan", "plugins/exec-native/cgroup", "plugins/exec-native/resctrl", "plugins/exec-native/seccomp", "plugins/exec-native/weak", "internal"}, "starts for each container: no contract, no gRPC"},
		{"plugins/exec-native/seccomp", []string{"internal"}, "also in gantry-oci: no contract, no gRPC"},
		{"plugins/exec-native/resctrl", []string{"internal"}, "also in gantry-oci: no contract, no gRPC"},
		{"plugins/exec-native/cgroup", []string{"plugins/exec-native/cgroup", "internal"}, "also in gantry-oci: no contract, no gRPC"},
		{"cli", []string{"cli", "core", "bus", "eventlog", "internal"}, "small and quick to start"},
		{"gateway", []string{"gateway", "core", "bus", "internal"}, "puts another API into commands and queries"},
		{"cmd/gantry-drivers", []string{"plugins", "sdk"}, "all built-in drivers in one file"},
		{"cmd/gantry-oci", []string{"plugins/exec-native/runtime"}, "an OCI runtime without an engine: lean, quick to start"},
		{"cmd", []string{"cmd", "cli", "engine", "eventlog", "bus", "driverhost", "gateway", "core", "sdk", "internal"}, "reads flags, builds, runs"},
		{"internal", []string{"internal", "core"}, "leaves; the query package speaks of the core's nouns"},
		{"examples", []string{"examples", "sdk"}, "what a third party has"},
		{"bench", []string{""}, "measures everything"},
		{"test", []string{""}, "tests everything"},
	}
}

// outside are modules of others that only some folders may use.
func outside() []rule {
	return []rule{
		{"google.golang.org/grpc", []string{"api", "sdk", "driverhost", "examples", "test", "plugins"}, "gRPC ends at the driver socket"},
		{"github.com/hashicorp/go-plugin", []string{"sdk", "driverhost", "test", "examples"}, "the engine does not know it"},
		{"github.com/nats-io/nats-server", []string{"bus/server"}, "linked into the CLI it costs 10 MB and 1 ms a start"},
		{"github.com/nats-io", []string{"bus", "test"}, "the bus hides its carrier"},
		{"github.com/vishvananda/netlink", []string{"plugins/net-", "plugins/exec-native/runtime", "test"}, "only net drivers speak netlink, and who moves netDevices"},
		{"github.com/google/nftables", []string{"plugins/net-", "test"}, "only net drivers speak nftables"},
		{"github.com/opencontainers/runtime-spec", []string{"plugins/exec-", "bench", "test"}, "the core has words of its own"},
		{"github.com/coreos/go-systemd", []string{"plugins/exec-native/cgroup/systemd"}, "D-Bus is spoken where systemd is asked for a scope"},
		{"github.com/godbus", []string{"plugins/exec-native/cgroup/systemd"}, "D-Bus is spoken where systemd is asked for a scope"},
		{"github.com/opencontainers/cgroups", []string{"plugins/exec-"}, "only exec drivers limit"},
		{"github.com/spf13", []string{"cli", "test"}, "one command line"},
	}
}

type pkg struct {
	ImportPath                             string
	Dir                                    string
	Name, Doc                              string
	Imports                                []string
	GoFiles, CgoFiles, TestGoFiles, CFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,Imports,GoFiles,CgoFiles,TestGoFiles", "../../...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func below(pkg, folder string) bool {
	return folder == "" || pkg == folder || strings.HasPrefix(pkg, folder+"/") || strings.HasSuffix(folder, "-") && strings.HasPrefix(pkg, folder)
}

func ruleOf(folder string) (rule, bool) {
	var best rule
	found := false
	for _, r := range rules() {
		if below(folder, r.folder) && len(r.folder) >= len(best.folder) {
			best, found = r, true
		}
	}
	return best, found
}

// TestImports fails on the first import that breaks the table.
func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		folder := strings.TrimPrefix(p.ImportPath, module)
		r, ok := ruleOf(folder)
		if !ok {
			t.Errorf("%s stands in no line of the table: say what it owns and whom it may import", folder)
			continue
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok {
				allowed := ours == folder
				for _, m := range r.may {
					allowed = allowed || below(ours, m)
				}
				if !allowed {
					t.Errorf("%s imports %s, but %s may import only %v: %s", folder, ours, r.folder, r.may, r.why)
				}
				continue
			}
			checkOutside(t, folder, imp)
		}
	}
}

func checkOutside(t *testing.T, folder, imp string) {
	t.Helper()
	var best rule
	for _, r := range outside() {
		if strings.HasPrefix(imp, r.folder) && len(r.folder) > len(best.folder) {
			best = r
		}
	}
	if best.folder == "" {
		return
	}
	for _, m := range best.may {
		if below(folder, m) {
			return
		}
	}
	t.Errorf("%s imports %s, which only %v may: %s", folder, imp, best.may, best.why)
}

// TestCoreIsPure: the core may use the standard library's pure part and the
// error classes.
func TestCoreIsPure(t *testing.T) {
	pure := map[string]bool{}
	for _, p := range strings.Fields("bytes cmp crypto/sha256 encoding/hex encoding/json errors fmt hash/fnv maps net/netip path regexp slices sort strconv strings time github.com/containerd/errdefs") {
		pure[p] = true
	}
	for _, p := range packages(t) {
		if p.ImportPath != module+"core" {
			continue
		}
		for _, imp := range p.Imports {
			if !pure[imp] {
				t.Errorf("core imports %s, which is not in the pure part", imp)
			}
		}
	}
}

// TestDrivers: a driver is found by its folder's name.
func TestDrivers(t *testing.T) {
	for _, p := range packages(t) {
		folder := strings.TrimPrefix(p.ImportPath, module)
		dir, name := path.Split(folder)
		if dir != "plugins/" {
			continue
		}
		if kind, rest, ok := strings.Cut(name, "-"); !ok || rest == "" || !strings.Contains("graphdriver net exec image", kind) {
			t.Errorf("plugins/%s is not named <kind>-<name>", name)
		}
	}
}
