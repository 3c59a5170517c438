// Package hello holds the image that every engine brings along, so that a first
// container runs without a registry: one static program of a few kilobytes that
// says where it finds itself.
//
// The archive is committed, since go:embed needs it before anything is built.
// `go generate ./internal/hello` makes it anew from program/hello.c, byte for byte the
// same with the same compiler; a test of gen holds it to that.
package hello

import _ "embed"

//go:generate go run ./gen -source program/hello.c -o hello.tar

// Name is the reference under which the image is loaded.
const Name = "hello:latest"

//go:embed hello.tar
var archive string

// Archive is the image as a tar of an OCI image layout, for linux/amd64.
func Archive() string { return archive }
