// Command gantry-drivers is every built-in driver in one file. It is installed
// under the name of each of them (gantry-<kind>-<name>, links) and runs as the
// one by whose name it was started: processes of one file share its pages.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	native "github.com/gantryd/gantry/plugins/exec-native"
	"github.com/gantryd/gantry/plugins/graphdriver-overlay"
	"github.com/gantryd/gantry/plugins/graphdriver-vfs"
	oci "github.com/gantryd/gantry/plugins/image-oci"
	bridge "github.com/gantryd/gantry/plugins/net-bridge"
	host "github.com/gantryd/gantry/plugins/net-host"
	null "github.com/gantryd/gantry/plugins/net-null"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/imagedriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func main() {
	drivers := map[string]func() int{
		"gantry-exec-native":         func() int { return execdriver.Main(native.New) },
		"gantry-graphdriver-overlay": func() int { return graphdriver.Main(overlay.New) },
		"gantry-graphdriver-vfs":     func() int { return graphdriver.Main(vfs.New) },
		"gantry-image-oci":           func() int { return imagedriver.Main(oci.New) },
		"gantry-net-bridge":          func() int { return netdriver.Main(bridge.New) },
		"gantry-net-host":            func() int { return netdriver.Main(host.New) },
		"gantry-net-null":            func() int { return netdriver.Main(null.New) },
	}
	run := drivers[filepath.Base(os.Args[0])]
	if run == nil {
		fmt.Fprintln(os.Stderr, "gantry: this file holds the built-in drivers; start it by the name of one, e.g. gantry-graphdriver-overlay")
		os.Exit(2)
	}
	os.Exit(run())
}
