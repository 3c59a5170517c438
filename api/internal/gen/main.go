// Command gen makes what is derived from the .proto files: the Go code beside
// them, the descriptor in api/schema.txtpb, and the module of the Python
// example. It needs neither protoc nor a network, only this module's own
// dependencies.
//
//	go run ./api/internal/gen          write
//	go run ./api/internal/gen -check   fail if something written is stale
//
// Both fail if a field, method, message or value of the committed schema is
// gone or has another number or type: version 1 only grows.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	check := flag.Bool("check", false, "write nothing; fail if something is stale")
	root := flag.String("C", ".", "root directory of the module")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
