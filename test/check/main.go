// Command check is what a change must pass before it is reviewed: format, vet,
// staticcheck, the rules of the house, generated code up to date.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	checks := []struct {
		what   string
		args   []string
		silent bool // any output is a failure
	}{
		{"format", []string{"gofmt", "-l", "api", "bench", "bus", "cli", "cmd", "core", "driverhost", "engine", "eventlog", "examples", "image", "internal", "plugins", "sdk", "test"}, true},
		{"vet", []string{"go", "vet", "./..."}, false},
		{"staticcheck", []string{"go", "tool", "staticcheck", "./..."}, false},
		{"rules", []string{"go", "test", "-count=1", "./test/arch"}, false},
		{"generated code", []string{"go", "run", "./api/internal/gen", "-check"}, false},
		{"catalogue", []string{"go", "test", "-count=1", "-run", "Catalogue|Samples|Schema", "./core"}, false},
	}
	failed := false
	for _, c := range checks {
		cmd := exec.Command(c.args[0], c.args[1:]...)
		out, err := cmd.CombinedOutput()
		if err != nil || c.silent && len(bytes.TrimSpace(out)) > 0 {
			failed = true
			fmt.Printf("FAIL %s\n%s\n", c.what, out)
			continue
		}
		fmt.Println("ok  ", c.what)
	}
	if failed {
		os.Exit(1)
	}
}
