// Package driverhost starts and watches driver processes and runs the engine's
// steps against them. It decides nothing and does not know what a container is
// for: steps come over the bus, results and reports go back over it.
//
// A driver is a program gantry-<kind>-<name> on the driver path, started on
// first use, in a cgroup of its own, with an environment of its own and with no
// more capabilities than its kind needs. The host gives each process the lock
// of its instance as an inherited descriptor and keeps no copy: the lock falls
// when the last process of that instance is gone, and no new instance starts
// before (fence.go).
//
//	found ──first step──▶ starting ──Info, List, inventory reported──▶ serving
//	                         ▲                                            │
//	                         └──────────── back-off ◀── process died ─────┘
//
// A driver that died is started again at once if it has work: steps in flight
// end as Unavailable, which the engine answers by asking again.
package driverhost
