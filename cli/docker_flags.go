package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// laterFlags are the flags of docker's verb (version 28) that nothing here acts
// on yet, with their short forms. They are refused by name.
func laterFlags(verb string) []string {
	switch verb {
	case "ps", "ls":
		return []string{"size,s"}
	case "inspect":
		return []string{"size,s"}
	case "start":
		return []string{"checkpoint", "checkpoint-dir"}
	case "run", "create":
	default:
		return nil
	}
	return []string{
		"add-host", "annotation", "cpu-count", "cpu-percent", "disable-content-trust", "dns", "dns-opt", "dns-option",
		"dns-search", "expose", "gpus", "io-maxbandwidth", "io-maxiops", "ip", "ip6", "isolation", "kernel-memory", "link",
		"link-local-ip", "mac-address", "net-alias", "network-alias", "platform", "publish,p", "publish-all,P", "quiet,q",
		"runtime", "storage-opt", "use-api-socket", "volume-driver", "volumes-from",
	}
}

// later says which flag of docker's the unknown flag is, or "".
func later(verb, name string) string {
	for _, f := range laterFlags(verb) {
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
	if errors.As(err, &unknown) {
		if long := later(c.Name(), unknown.GetSpecifiedName()); long != "" {
			return &usageError{errors.New(long + " is not supported yet"), c.CommandPath()}
		}
	}
	return &usageError{err, c.CommandPath()}
}
