// Command gantry is the command line: it says what is wanted, and shows what is
// and what was.
package main

import (
	"os"

	"github.com/gantryd/gantry/cli"
)

var version = "0.1.0-dev" // set by the linker

func main() {
	os.Exit(cli.Main(cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		LookupEnv: os.LookupEnv, Version: version,
	}))
}
