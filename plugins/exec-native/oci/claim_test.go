package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/spectest"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// claim says who serves a field of the specification, and how to see it: with a
// patch the plan must come out changed, or be refused by a sentence that holds
// some words. A claim for a field covers all below it.
type claim struct {
	patch   string // merged into the base specification
	refused string // what the refusal says
	by      string // who serves it, where it is not in the plan; its own tests see it
}

const (
	byCgroup  = "package cgroup"
	bySeccomp = "package seccomp"
	byOpener  = "Opener: in the detached mount"
	byRuntime = "package runtime and the driver"
)

// claims lists every field of config.json.
func claims() map[string]claim {
	hook := func(kind string) string { return `{"hooks":{"` + kind + `":[{"path":"/h"}]}}` }
	return map[string]claim{
		"ociVersion":  {patch: `{"ociVersion":"2.0.0"}`, refused: "ociVersion"},
		"annotations": {by: byRuntime},
		"hostname":    {patch: `{"hostname":"other"}`},
		"domainname":  {patch: `{"domainname":"other"}`},
		"solaris":     {patch: `{"solaris":{}}`, refused: "solaris"},
		"windows":     {patch: `{"windows":{"layerFolders":[]}}`, refused: "windows"},
		"vm":          {patch: `{"vm":{"kernel":{"path":"/k"}}}`, refused: "vm"},
		"zos":         {patch: `{"zos":{}}`, refused: "zos"},
		"freebsd":     {patch: `{"freebsd":{}}`, refused: "freebsd"},

		"root.path":     {by: byRuntime},
		"root.readonly": {patch: `{"root":{"path":"r","readonly":true}}`},

		"mounts.destination": {patch: `{"mounts":[{"destination":"/a","type":"tmpfs"}]}`},
		"mounts.type":        {patch: `{"mounts":[{"destination":"/proc","type":"sysfs"}]}`},
		"mounts.source":      {patch: `{"mounts":[{"destination":"/proc","type":"proc","source":"p"}]}`},
		"mounts.options":     {patch: `{"mounts":[{"destination":"/proc","type":"proc","options":["ro"]}]}`},
		"mounts.uidMappings": {by: byOpener},
		"mounts.gidMappings": {by: byOpener},

		"hooks.prestart":        {by: byRuntime},
		"hooks.createRuntime":   {by: byRuntime},
		"hooks.createContainer": {patch: hook("createContainer")},
		"hooks.startContainer":  {patch: hook("startContainer")},
		"hooks.poststart":       {by: byRuntime},
		"hooks.poststop":        {by: byRuntime},

		"process.terminal":            {patch: `{"process":{"terminal":true}}`},
		"process.consoleSize":         {patch: `{"process":{"terminal":true,"consoleSize":{"height":3,"width":4}}}`},
		"process.user.uid":            {patch: `{"process":{"user":{"uid":4}}}`},
		"process.user.gid":            {patch: `{"process":{"user":{"gid":4}}}`},
		"process.user.umask":          {patch: `{"process":{"user":{"umask":7}}}`},
		"process.user.additionalGids": {patch: `{"process":{"user":{"additionalGids":[4]}}}`},
		"process.user.username":       {patch: `{"process":{"user":{"username":"x"}}}`, refused: "process.user.username"},
		"process.args":                {patch: `{"process":{"args":["/other"]}}`},
		"process.commandLine":         {patch: `{"process":{"commandLine":"x"}}`, refused: "process.commandLine"},
		"process.env":                 {patch: `{"process":{"env":["A=b"]}}`},
		"process.cwd":                 {patch: `{"process":{"cwd":"/tmp"}}`},
		"process.capabilities":        {patch: `{"process":{"capabilities":{"bounding":["CAP_CHOWN"]}}}`},
		"process.rlimits":             {patch: `{"process":{"rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":2}]}}`},
		"process.noNewPrivileges":     {patch: `{"process":{"noNewPrivileges":true}}`},
		"process.apparmorProfile":     {patch: `{"process":{"apparmorProfile":"p"}}`, refused: "process.apparmorProfile"},
		"process.selinuxLabel":        {patch: `{"process":{"selinuxLabel":"l"}}`, refused: "process.selinuxLabel"},
		"process.oomScoreAdj":         {patch: `{"process":{"oomScoreAdj":3}}`},
		"process.scheduler":           {patch: `{"process":{"scheduler":{"policy":"SCHED_BATCH"}}}`},
		"process.ioPriority":          {patch: `{"process":{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":2}}}`},
		"process.execCPUAffinity":     {by: "PlanExec"},

		"linux.uidMappings":       {patch: `{"linux":{"uidMappings":[{"size":1}]}}`, refused: "linux.uidMappings"},
		"linux.gidMappings":       {patch: `{"linux":{"gidMappings":[{"size":1}]}}`, refused: "user namespace"},
		"linux.sysctl":            {patch: `{"linux":{"sysctl":{"net.ipv4.ip_forward":"1"}}}`},
		"linux.resources":         {by: byCgroup},
		"linux.cgroupsPath":       {by: byCgroup},
		"linux.namespaces":        {patch: `{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"uts"},{"type":"network"},{"type":"time"}]}}`},
		"linux.devices":           {patch: `{"linux":{"devices":[{"path":"/dev/x","type":"c","major":1,"minor":3}]}}`},
		"linux.netDevices":        {by: byRuntime},
		"linux.seccomp":           {by: bySeccomp},
		"linux.rootfsPropagation": {patch: `{"linux":{"rootfsPropagation":"slave"}}`},
		"linux.maskedPaths":       {patch: `{"linux":{"maskedPaths":["/x"]}}`},
		"linux.readonlyPaths":     {patch: `{"linux":{"readonlyPaths":["/x"]}}`},
		"linux.mountLabel":        {patch: `{"linux":{"mountLabel":"l"}}`, refused: "linux.mountLabel"},
		"linux.intelRdt":          {patch: `{"linux":{"intelRdt":{}}}`, refused: "linux.intelRdt"},
		"linux.memoryPolicy":      {patch: `{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0"}}}`, refused: "linux.memoryPolicy"},
		"linux.personality":       {patch: `{"linux":{"personality":{"domain":"LINUX32"}}}`},
		"linux.timeOffsets":       {patch: `{"linux":{"timeOffsets":{"boottime":{"secs":1}}}}`, refused: "linux.timeOffsets"},
	}
}

// baseSpec is what the patches are merged into.
const baseSpec = `{"ociVersion":"1.3.0","root":{"path":"r"},"hostname":"h",
 "process":{"user":{"uid":0,"gid":0},"args":["/bin/x"],"cwd":"/","capabilities":{}},
 "mounts":[{"destination":"/proc","type":"proc"}],
 "linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"uts"},{"type":"network"}]}}`

// patched decodes the base with a patch over it.
func patched(t *testing.T, patch string) *specs.Spec {
	t.Helper()
	var s specs.Spec
	for _, text := range []string{baseSpec, patch} {
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return &s
}

// planned is the plan of a specification on a machine without modules, printed.
func planned(s *specs.Spec) (string, error) {
	if err := Check(s, Machine{}); err != nil {
		return "", err
	}
	state := []byte(`{"pid":          }`)
	h := Handles{Front: []plan.Op{plan.Leave{}}, CgroupDir: plan.NoFD, Network: plan.NoFD, Programs: s.Process.Args}
	h.States.Create, h.States.Start = state, state
	for range s.Mounts {
		h.Mounts = append(h.Mounts, Mount{FD: plan.NoFD})
	}
	p, err := Plan(s, h)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, step := range p.Steps {
		fmt.Fprintf(&b, "%v %v %+v\n", step.Stage, step.Op.Kind(), step.Op)
	}
	return b.String(), nil
}

// TestEveryFieldIsClaimed: a field that nobody has claimed fails.
func TestEveryFieldIsClaimed(t *testing.T) {
	all := claims()
	for _, path := range spectest.Missing(func(path string) bool { _, ok := all[path]; return ok }) {
		t.Errorf("%s: nobody serves or refuses it", path)
	}
}

// TestClaimsHold sees what each field does.
func TestClaimsHold(t *testing.T) {
	before, err := planned(patched(t, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	for field, c := range claims() {
		if c.by != "" {
			if c.patch != "" || c.refused != "" {
				t.Errorf("%s: claimed twice", field)
			}
			continue
		}
		got, err := planned(patched(t, c.patch))
		switch {
		case c.refused == "" && (err != nil || got == before):
			t.Errorf("%s: %v; nothing has changed: %v", field, err, got == before)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: %v, want a refusal about %q", field, err, c.refused)
		}
	}
}

// TestWithModules plans what this machine may lack.
func TestWithModules(t *testing.T) {
	every := Machine{AppArmor: true, SELinux: true, MemoryPolicy: true}
	for patch, want := range map[string]string{
		`{"process":{"apparmorProfile":"p"}}`:                                                           `label {Attr:apparmor/exec Value:exec p}`,
		`{"process":{"selinuxLabel":"a:b"}}`:                                                            `label {Attr:exec Value:a:b}`,
		`{"linux":{"mountLabel":"m"},"mounts":[{"destination":"/t","type":"tmpfs"}]}`:                   `Key:context Value:m`,
		`{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0-2","flags":["MPOL_F_STATIC_NODES"]}}}`: `memory-policy {Mode:32770 Nodes:[7]}`,
	} {
		s := patched(t, patch)
		if err := Check(s, every); err != nil {
			t.Errorf("%s: %v", patch, err)
			continue
		}
		h := Handles{CgroupDir: plan.NoFD, Network: plan.NoFD, Programs: s.Process.Args, Mounts: []Mount{{FD: plan.NoFD}}}
		p, err := Plan(s, h)
		if err != nil {
			t.Errorf("%s: %v", patch, err)
			continue
		}
		var b strings.Builder
		for _, step := range p.Steps {
			fmt.Fprintf(&b, "%v %+v\n", step.Op.Kind(), step.Op)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %q in\n%s", patch, want, b.String())
		}
	}
}

// TestRefusals names what is wrong.
func TestRefusals(t *testing.T) {
	for patch, want := range map[string]string{
		`{"process":{"args":[]}}`:                                                     "process.args",
		`{"process":{"cwd":"tmp"}}`:                                                   "process.cwd",
		`{"process":{"env":["X"]}}`:                                                   "process.env",
		`{"process":{"user":{"umask":512}}}`:                                          "umask",
		`{"process":{"rlimits":[{"type":"RLIMIT_FLY"}]}}`:                             "RLIMIT_FLY",
		`{"process":{"rlimits":[{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}]}}`:       "twice",
		`{"process":{"scheduler":{"policy":"SCHED_FIFO"}}}`:                           "priority 0",
		`{"process":{"scheduler":{"policy":"SCHED_OTHER","nice":20}}}`:                "nice 20",
		`{"process":{"ioPriority":{"class":"X"}}}`:                                    "ioPriority",
		`{"hostname":"` + strings.Repeat("h", 65) + `"}`:                              "hostname",
		`{"linux":{"namespaces":[{"type":"pid"}]}}`:                                   "hostname without",
		`{"linux":{"namespaces":[{"type":"user"},{"type":"uts"}]}}`:                   "without a mount namespace",
		`{"linux":{"namespaces":[{"type":"mount"},{"type":"mount"},{"type":"uts"}]}}`: "twice",
		`{"linux":{"namespaces":[{"type":"fly"},{"type":"uts"}]}}`:                    `"fly"`,
		`{"linux":{"sysctl":{"kernel.panic":"1"}}}`:                                   "kernel.panic",
		`{"linux":{"sysctl":{"kernel.shmmax":"1"}}}`:                                  "ipc namespace",
		`{"linux":{"sysctl":{"net/../kernel/panic":"1"}}}`:                            "is not a name",
		`{"linux":{"rootfsPropagation":"fly"}}`:                                       "rootfsPropagation",
		`{"linux":{"personality":{"domain":"BSD"}}}`:                                  "personality",
		`{"hooks":{"poststart":[{"path":"rel"}]}}`:                                    "hooks.poststart[0]",
		`{"hooks":{"poststop":[{"path":"/h","timeout":0}]}}`:                          "timeout",
		`{"linux":{"netDevices":{"a/b":{}}}}`:                                         "netDevices",
		`{"mounts":[{"destination":"/x","type":"proc","options":["iversion"]}]}`:      "iversion",
	} {
		if _, err := planned(patched(t, patch)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want something about %q", patch, err, want)
		}
	}
}

// TestOptions sorts options.
func TestOptions(t *testing.T) {
	for _, c := range []struct {
		words string
		want  options
	}{
		{"ro nosuid", options{top: attributes{set: 3}}},
		{"ro rw", options{top: attributes{clear: 1}}},
		{"rw ro", options{top: attributes{set: 1}}},
		{"rro rnoexec", options{all: attributes{set: 9}}},
		{"noatime", options{top: attributes{set: 0x10, clear: 0x70}}},
		{"noatime strictatime", options{top: attributes{set: 0x20, clear: 0x70}}},
		{"strictatime relatime", options{top: attributes{clear: 0x70}}},
		{"rbind rslave", options{bind: true, tree: true, propagation: 1 << 19, spread: true}},
		{"sync size=1m defaults", options{super: []string{"sync"}, data: []string{"size=1m"}}},
		{"ridmap", options{idmap: true, idmapTree: true}},
	} {
		got, err := optionsOf(specs.Mount{Type: "tmpfs", Options: strings.Fields(c.words)})
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v %v, want %+v", c.words, got, err, c.want)
		}
	}
}

// TestMapNamespace makes a namespace with a map, and leaves no process behind.
func TestMapNamespace(t *testing.T) {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}
	ns, err := MapNamespace(m, m)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	own, _ := os.Stat("/proc/self/ns/user")
	if st, err := ns.Stat(); err != nil || os.SameFile(own, st) {
		t.Errorf("the namespace is our own: %v", err)
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if len(children) > 0 {
		t.Errorf("children left: %s", children)
	}
}
