// Package resctrl puts containers into classes of the processor's resource
// control (Intel RDT, AMD PQoS, Arm MPAM): shares of caches and of memory
// bandwidth, and groups that only count.
//
// The kernel shows them as a file system with a directory for each class. Its
// file schemata has a line for each resource, "L3:0=7ff;1=7f"; who writes 0 into
// its file tasks is in the class, and so is all that it starts. A class has
// groups below mon_groups that count apart.
//
// What a specification asks for is checked first (Check), made (Root.Make) with
// everything undone after an error, entered by the container's first process
// itself, before it is anybody else's program (Root.Tasks), and removed
// (Root.Remove) as far as it was made for the container.
//
// Sources: the runtime specification, config-linux.md "IntelRdt";
// Documentation/filesystems/resctrl.rst of the kernel.
package resctrl
