// Package rig starts private engines for tests that need a real kernel: the
// programs as they are built, a scratch directory, a random name, and a network
// namespace of their own, so that nothing they do reaches the machine's
// network or another engine. It tells what an engine has on the machine, and
// takes everything away at the end, whatever has happened before.
//
// Whatever a rig kills, it finds by the pid it started or in a cgroup that bears
// the engine's random name.
package rig
