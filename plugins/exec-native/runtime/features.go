package runtime

import (
	"context"

	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// runFeatures is the command features (runtime specification, features.md).
func runFeatures(_ context.Context, g *globals, args []string) (int, error) {
	if _, err := parse(newFlags("features"), g, args, 0, 0); err != nil {
		return exitUsage, err
	}
	return 0, printJSON(featuresOf(g.version), true)
}

func featuresOf(version string) features.Features {
	yes, no := true, false
	known, taken := seccomp.Flags()
	return features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: oci.MountOptions(),
		Linux: &features.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: oci.CapNames(),
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled: &yes, Archs: words(seccomp.Architectures()), KnownFlags: words(known), SupportedFlags: words(taken),
				Actions:   words(seccomp.Actions()),
				Operators: words(seccomp.Operators()),
			},
			Apparmor: &features.Apparmor{Enabled: &yes}, Selinux: &features.Selinux{Enabled: &yes},
			IntelRdt: &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy: &features.MemoryPolicy{
				Modes: oci.MemoryModes(), Flags: oci.MemoryFlags(),
			},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
		Annotations: map[string]string{"com.github.gantryd.gantry.version": version},
	}
}

// words are strings of a kind as plain ones.
func words[S ~string](list []S) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}
