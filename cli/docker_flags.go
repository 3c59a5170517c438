package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// laterFlags are the flags of docker's run and create (version 28) that nothing
// here acts on yet, with their short forms. They are refused by name.
func laterFlags() []string {
	return []string{
		"add-host", "annotation", "attach,a", "blkio-weight", "blkio-weight-device", "cgroup-parent", "cgroupns",
		"cidfile", "cpu-count", "cpu-percent", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime",
		"cpu-shares,c", "cpuset-cpus", "cpuset-mems", "detach-keys", "device", "device-cgroup-rule",
		"device-read-bps", "device-read-iops", "device-write-bps", "device-write-iops", "disable-content-trust",
		"dns", "dns-opt", "dns-option", "dns-search", "domainname", "env-file", "expose", "gpus", "group-add",
		"health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period",
		"health-timeout", "init", "io-maxbandwidth", "io-maxiops", "ip", "ip6", "ipc", "isolation", "kernel-memory",
		"label-file", "link", "link-local-ip", "log-opt", "mac-address", "memory-reservation", "memory-swap",
		"memory-swappiness", "mount", "net-alias", "network-alias", "no-healthcheck", "oom-kill-disable",
		"oom-score-adj", "pid", "platform", "publish,p", "publish-all,P", "pull", "quiet,q", "restart", "runtime",
		"shm-size", "storage-opt", "sysctl", "tmpfs", "tty,t", "ulimit", "use-api-socket", "userns", "uts",
		"volume,v", "volume-driver", "volumes-from",
	}
}

// later says which flag of docker's the unknown flag is, or "".
func later(name string) string {
	for _, f := range laterFlags() {
		long, short, _ := strings.Cut(f, ",")
		if name == long || name == short && short != "" {
			return "--" + long
		}
	}
	return ""
}

// flagError says what is wrong with a flag. One that docker knows and we do not
// yet is named as such.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && slices.Contains([]string{"run", "create"}, c.Name()) {
		if long := later(unknown.GetSpecifiedName()); long != "" {
			return &usageError{errors.New(long + " is not supported yet"), c.CommandPath()}
		}
	}
	return &usageError{err, c.CommandPath()}
}
