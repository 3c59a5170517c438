// Package oci turns an OCI runtime specification into the plan that
// gantry-shim runs. It is what the exec driver and gantry-oci have in common,
// and knows neither of them: no contract, no gRPC, no directories of ours.
//
//	open   mounts become detached mounts, users and programs are looked up
//	       through descriptors (mount.go, user.go, program.go)
//	Plan   specification and descriptors → plan (plan.go, plan_*.go); pure
//
// What goes wrong when the plan runs is put into words by StartError.
package oci
