// Command gantryd is the engine: the loop that decides, the bus, and the host of
// the drivers. Containers outlive it.
package main

import (
	"context"
	"fmt"
	"os"
)

// version is set by the build.
var version = "dev"

func run(o options) error {
	if o.repair {
		return repair(context.Background(), o, os.Stdout)
	}
	return serve(o)
}

func main() {
	o, err := readFlags(os.Args[1:])
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "gantryd:", err)
		os.Exit(2)
	case o.help:
	case o.version:
		fmt.Println("gantryd", version)
	case o.check:
		if !check(os.Stdout) {
			os.Exit(1)
		}
	default:
		if err := run(o); err != nil {
			report(os.Stderr, err)
			os.Exit(1)
		}
	}
}
