package probe

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Security tells what keeps containers in on this machine, by default and if
// nothing else is said: what is in force, and what follows where it is not.
func Security() []Feature {
	return []Feature{
		seccompInForce(), appArmor(), selinux(), cgroups()[0], userNamespaces(), noNewPrivileges(), lsms(), capabilities(),
	}
}

// seccompInForce tells which answers a filter may give beside the plain ones.
func seccompInForce() Feature {
	f := seccomp()
	if !f.Have {
		return f
	}
	f.Detail = "default profile"
	actions, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err == nil {
		f.Detail += "; actions " + strings.Join(strings.Fields(string(actions)), ", ")
	}
	return f
}

// standardProfile is the AppArmor profile that the exec driver loads for
// containers that name none.
const standardProfile = "gantry-default"

// appArmor asks the module itself: the file is there whenever it was built in.
// Of the profiles it reads the list: one line each, name and mode.
func appArmor() Feature {
	f := Feature{Name: "AppArmor", Consequence: "containers have no profile; naming one is refused"}
	text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	switch {
	case err != nil:
		f.Detail = "not in this kernel"
	case strings.TrimSpace(string(text)) != "Y":
		f.Detail = "switched off"
	default:
		profiles, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
		f.Have, f.Detail = true, profileDetail(string(profiles), err)
	}
	return f
}

// profileDetail says what containers have that name no profile.
func profileDetail(profiles string, err error) string {
	switch {
	case err != nil:
		return "in force, but no profile can be seen: " + err.Error()
	case !strings.HasPrefix(profiles, standardProfile+" ") && !strings.Contains(profiles, "\n"+standardProfile+" "):
		return "in force, but the profile " + standardProfile + " is not loaded: containers have one only if it is named"
	}
	return "profile " + standardProfile + ", unless another is named"
}

// selinux looks for its file system, which is there only while it is on.
func selinux() Feature {
	f := Feature{Name: "SELinux", Consequence: "containers have no label; naming one is refused"}
	text, err := os.ReadFile("/sys/fs/selinux/enforce")
	if err != nil {
		f.Detail = "not in force in this kernel"
		return f
	}
	f.Have, f.Detail = true, "permissive"
	if strings.TrimSpace(string(text)) == "1" {
		f.Detail = "enforcing"
	}
	return f
}

// userNamespaces reads how many there may be.
func userNamespaces() Feature {
	f := Feature{Name: "user namespaces", Consequence: "--userns private is refused"}
	text, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	most := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		f.Detail = "not in this kernel"
	case most == "0":
		f.Detail = "user.max_user_namespaces is 0"
	default:
		f.Have, f.Detail = true, fmt.Sprintf("the host's by default, one of its own with --userns private (at most %s)", most)
	}
	return f
}

// noNewPrivileges asks whether the kernel knows it; by default it is off, as
// images with sudo or ping expect.
func noNewPrivileges() Feature {
	_, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return answer("no new privileges", err, "off by default; on with --security-opt no-new-privileges", "set-uid programs cannot be held back")
}
