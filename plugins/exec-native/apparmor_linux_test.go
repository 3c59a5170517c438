package execnative

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gantryd/gantry/sdk/execdriver"
)

// TestAppArmorKernel confines containers and execs by the standard profile, and
// none that is to have every right. The mount is refused although the container
// has the capability: its control is the same one without a profile.
func TestAppArmorKernel(t *testing.T) {
	if !hasAppArmor() {
		t.Skip("AppArmor is not in force in this kernel")
	}
	if _, err := exec.LookPath(apparmorParser); err != nil {
		t.Skip("apparmor_parser is not installed: no profile can be loaded")
	}
	b := newBench(t)
	info, err := b.d.Info(context.Background())
	if err != nil || strings.Contains(strings.Join(info.Warnings, "\n"), "AppArmor: ") {
		t.Fatalf("warnings %q (%v)", info.Warnings, err)
	}
	const script = "cat /proc/self/attr/current; mount -t tmpfs none /tmp 2>/dev/null && echo mounted"
	for name, c := range map[string]struct {
		security execdriver.Security
		want     string
	}{
		"default":    {execdriver.Security{CapAdd: []string{"SYS_ADMIN"}, Seccomp: "unconfined"}, "gantry-default (enforce)\n"},
		"unconfined": {execdriver.Security{CapAdd: []string{"SYS_ADMIN"}, Seccomp: "unconfined", AppArmor: "unconfined"}, "unconfined\nmounted\n"},
		"privileged": {execdriver.Security{Privileged: true}, "unconfined\nmounted\n"},
	} {
		r := b.request(script)
		r.Security = c.security
		if out, _ := b.run(r); out != c.want {
			t.Errorf("%s: %q, want %q", name, out, c.want)
		}
	}
	r, s := b.idle(func(*execdriver.Start) {})
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", s.PID)); string(text) != "gantry-default (enforce)\n" {
		t.Errorf("seen from outside: %q (%v)", text, err)
	}
	old := b.d
	b.open() // as after a restart
	old.close()
	if out, _ := b.exec(execRequest(r.Key, "cat /proc/self/attr/current"), ""); out != "gantry-default (enforce)\n" {
		t.Errorf("an exec has %q", out)
	}
	all := execRequest(r.Key, "cat /proc/self/attr/current")
	all.Privileged = true
	if out, _ := b.exec(all, ""); out != "unconfined\n" {
		t.Errorf("an exec with every right has %q", out)
	}
}
