// Package systemd makes a container's control group as a transient scope of
// systemd: where systemd rules the tree it is to be asked, and it sets limits
// anew whenever it reloads, so it is told them too.
//
//	unit, err := systemd.Parse(cgroupsPath, id)         "slice:prefix:name"
//	group, err := unit.Start(ctx, tree, resources)      a scope with Delegate, limits written and read back
//	err = unit.Update(ctx, group, resources)
//	err = unit.Stop(ctx)                                after group.Remove
//
// A scope begins with a process. Start puts one of its own there that never
// runs, so that the init can be born in the group as it is elsewhere, and ends
// it when the group's Release is called.
//
// It is the only package that speaks D-Bus, and only who is told
// --systemd-cgroup calls it. Where systemd is not pid 1 it is refused by name.
//
// Sources: org.freedesktop.systemd1(5), systemd.resource-control(5), and "The
// New Control Group Interfaces" of systemd; the specification's cgroupsPath as
// runc's docs/systemd.md reads it.
package systemd
