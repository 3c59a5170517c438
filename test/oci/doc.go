// Package oci holds gantry-oci to the public validation programs of the Open
// Container Initiative: those of github.com/opencontainers/runtime-tools v0.9.0,
// the newest there are. testdata/programs pins them and what they are built
// with by checksum; expected_test.go says of each assertion that does not hold
// why it does not.
package oci
