package oci

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// expectation is what a program that does not pass whole says, on which machines,
// and why. Anything else, also more that passes, fails the test.
type expectation struct {
	fails []string           // the assertions, by the begin of their text; in order
	says  string             // of the reason, where the program breaks off without an assertion
	some  bool               // any of them, or none: they depend on how quick a program ends
	on    func(machine) bool // nil: everywhere
	why   string
}

// machine is what the expectations depend on.
type machine struct {
	bounding    func(capability uintptr) bool
	controllers func(name string) bool // mounted with cgroup version 1
	has         func(path string) bool
	processors  int
}

func thisMachine() machine {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	return machine{
		bounding: func(c uintptr) bool {
			on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
			return err == nil && on == 1
		},
		controllers: func(c string) bool { return strings.Contains(string(mounts), "/"+c+" cgroup ") },
		has:         func(path string) bool { _, err := os.Stat(path); return err == nil },
		processors:  runtime.NumCPU(),
	}
}

func noResourceCap(m machine) bool { return !m.bounding(unix.CAP_SYS_RESOURCE) }

const (
	kernelMemory = "wants a limit of kernel memory, which version 1 takes and ignores since Linux 5.16; gantry-oci refuses it by its name"
	leafWeight   = "wants blkio.leaf_weight, gone from Linux with the CFQ scheduler in 5.0"
	hugetlb      = "wants version 1's hugetlb; the controller is version 2's here"
	resourceCap  = "wants CAP_SYS_RESOURCE, which is not ours to give; all else holds"
)

// expected lists the programs that do not pass whole.
func expected() map[string]expectation {
	exit1 := []string{"exit status 1"}
	noHugetlb := func(m machine) bool { return !m.controllers("hugetlb") }
	noLeaf := func(m machine) bool { return !m.has("/sys/fs/cgroup/blkio/blkio.leaf_weight") }
	return map[string]expectation{
		"linux_cgroups_memory":           {fails: repeat("exit status 1", 6), why: kernelMemory},
		"linux_cgroups_relative_memory":  {fails: exit1, why: kernelMemory},
		"linux_cgroups_blkio":            {says: "blockIO.leafWeight", on: noLeaf, why: leafWeight},
		"linux_cgroups_relative_blkio":   {fails: exit1, on: noLeaf, why: leafWeight},
		"linux_cgroups_hugetlb":          {says: "relative to the cgroups mount point", on: noHugetlb, why: hugetlb},
		"linux_cgroups_relative_hugetlb": {fails: []string{"get hugetlb cgroup data"}, on: noHugetlb, why: hugetlb},
		"linux_cgroups_cpus": {
			fails: repeat("cpu cpus is set correctly", 8), on: func(m machine) bool { return m.processors == 1 },
			why: "on one processor it sets 0-0, and compares with what the kernel makes of it: 0",
		},
		"linux_process_apparmor_profile": {says: "process.apparmorProfile", why: "names a profile that nobody has loaded; this kernel may not even have AppArmor"},
		"linux_mount_label": {
			says: "linux.mountLabel", on: func(m machine) bool { return !m.has("/sys/fs/selinux/enforce") },
			why: "the kernel has no SELinux, and a label that would be lost is refused",
		},
		"process_capabilities": {
			fails: []string{
				"expected bounding capability CAP_SYS_RESOURCE set", "expected effective capability CAP_SYS_RESOURCE set",
				"expected inheritable capability CAP_SYS_RESOURCE set", "expected permitted capability CAP_SYS_RESOURCE set",
				"expected ambient capability CAP_SYS_RESOURCE set",
			}, on: noResourceCap, why: resourceCap,
		},
		"linux_rootfs_propagation": {fails: repeat("check root propagation", 4), on: noResourceCap, why: resourceCap},
		"misc_props": {
			fails: []string{"implementations that are reading/processing this configuration file MUST NOT generate an error if they encounter an unknown annotation key"},
			why:   "misc_props.go:65 has the default program /runtimetest, but never copies it into the bundle: what it wants to see started is not there",
		},
		"hooks_stdin": {
			fails: []string{`the state of the container MUST be passed to "prestart"`, `the state of the container MUST be passed to "poststart"`},
			some:  true,
			why:   `hooks_stdin.go:44 compares the pid with what "state" says after "true" has ended, where there is none; and since 1.1 prestart is a part of the creation, with the status "creating" (config.md, "prestart")`,
		},
		"start": {
			fails: []string{"`start` operation MUST generate an error if `process` was not set", "timeout in waiting for the container status"},
			why:   "start.go:113 wants err == nil where its own sentence, and runtime.md (\"start\"), want an error; and then that the container has stopped, where an error leaves all as it was (runtime.md, \"errors\")",
		},
		"prestart": {
			says: "Pre-start hooks MUST be called after the `start` operation",
			why:  "since 1.1 they MUST be called as part of the create operation (config.md, \"prestart\"), as runc and crun always did",
		},
		"hooks": {
			says: "Hooks MUST be called in the listed order",
			why:  `hooks.go:97 compares with "post-start1", which hooks.go:53 lets the hook write as "post-start1 called": nobody can pass`,
		},
		"pidfile": {
			fails: []string{"create with '--pid-file' option works"},
			some:  true,
			why:   `pidfile.go:61 wants a signal to reach "true" after it was waited for to run: it has ended, and kill MUST then generate an error (runtime.md, "kill")`,
		},
	}
}

// triesOf is how often a program is run again that has not said what is expected.
// These two depend on the shell inside being quicker than they are: on its traps
// before the signal comes, on its output before that of the hook.
func triesOf(name string) int {
	if name == "killsig" || name == "poststart" {
		return 3
	}
	return 0
}

func repeat(text string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = text
	}
	return out
}
