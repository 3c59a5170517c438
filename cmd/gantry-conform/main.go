// Command gantry-conform holds a driver program to the contract of its kind
// and tells what it finds. See docs/drivers.md.
package main

import (
	"os"

	"github.com/gantryd/gantry/sdk/conform/report"
)

func main() {
	os.Exit(report.Main(os.Args[1:], os.Stdout, os.Stderr))
}
