package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestRefusalInFlags(t *testing.T) {
	for text, want := range map[string]string{
		"Resources.NanoCPUs 1500000000: this machine has 1": "--cpus 1.5: this machine has 1",
		"Resources.MemorySwapBytes 5 without":               "--memory-swap 5 without",
		"Resources.BlkioWeightDevices /dev/x: weight":       "--blkio-weight-device /dev/x: weight",
		"Security.Seccomp: the profile":                     "--security-opt seccomp: the profile",
		"start: Process.OOMScore -1000: below":              "start: --oom-score-adj -1000: below",
		"Process.Rows 99999":                                "Process.Rows 99999",
		"/etc/Security.Devices2 is a file":                  "/etc/Security.Devices2 is a file",
		"no such container: Resources":                      "no such container: Resources",
	} {
		if got := inFlags(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	c := &cobra.Command{}
	(&createFlags{}).register(c)
	for field, flag := range flagFields() {
		if name, _, _ := strings.Cut(flag, " "); c.Flags().Lookup(name) == nil {
			t.Errorf("%s: there is no flag --%s", field, flag)
		}
	}
}
