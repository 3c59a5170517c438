//go:build tools

// Package programs pins what the validation programs are built from.
package programs

import (
	_ "github.com/opencontainers/runtime-tools/cmd/runtimetest"
	_ "github.com/opencontainers/runtime-tools/validation/util"
)
