// Command gantry-oci runs containers from OCI bundles, with the command line of
// runc. It needs no engine.
package main

import (
	"os"

	"github.com/gantryd/gantry/plugins/exec-native/runtime"
)

var version = "dev" // set by the linker

func main() { os.Exit(runtime.Main(version, os.Args)) }
