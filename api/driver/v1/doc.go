// Package driverv1 is the driver protocol, version 1, as Go code. All of it
// but this page is generated from the .proto files beside it by
// api/internal/gen.
package driverv1

//go:generate go run ../../internal/gen -C ../../..
