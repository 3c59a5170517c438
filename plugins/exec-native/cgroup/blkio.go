package cgroup

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// blockIO plans weights and throttles of disks.
func (l *limits) blockIO(b *specs.LinuxBlockIO) {
	if !set(b.Weight) && !set(b.LeafWeight) && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+len(b.ThrottleWriteBpsDevice)+
		len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0 {
		return
	}
	for _, d := range b.WeightDevice {
		if !set(d.Weight) && !set(d.LeafWeight) {
			l.invalid("blockIO.weightDevice", "%d:%d has neither weight nor leafWeight", d.Major, d.Minor)
		}
	}
	version := l.on("blockIO", "blkio", "io")
	if version == 0 {
		return
	}
	if version == 1 {
		l.weightsV1(b)
	} else {
		l.weightsV2(b)
	}
	for _, t := range []struct {
		field, v1, v2 string
		devices       []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "read_bps", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "write_bps", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "read_iops", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "write_iops", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			l.throttle("blockIO."+t.field, version, t.v1, t.v2, d)
		}
	}
}

// throttle plans one limit of one disk; a rate of zero takes it away.
func (l *limits) throttle(field string, version int, v1, v2 string, d specs.LinuxThrottleDevice) {
	key := device(d.LinuxBlockIODevice)
	if version == 1 {
		rate := unsigned(d.Rate)
		l.add(Write{Field: field, Controller: "blkio", File: "blkio.throttle." + v1 + "_device",
			Value: key + " " + rate, Key: key, Back: rate, Rule: sameLine, Reset: key + " 0"})
		return
	}
	rate := "max"
	if d.Rate > 0 {
		rate = unsigned(d.Rate)
	}
	l.add(Write{Field: field, Controller: "io", Unified: true, File: "io.max",
		Value: key + " " + v2 + "=" + rate, Key: key, Back: v2 + "=" + rate, Rule: sameLine, Reset: key + " " + v2 + "=max"})
}

// device is a disk's number as the files spell it.
func device(d specs.LinuxBlockIODevice) string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// weightsV1 plans the weights of version 1: of CFQ, which kernels have had
// until 5.0, else of BFQ. Leaf weights were CFQ's alone.
func (l *limits) weightsV1(b *specs.LinuxBlockIO) {
	file := "blkio.weight"
	if !l.has("blkio", file) && l.has("blkio", "blkio.bfq.weight") {
		file = "blkio.bfq.weight"
	}
	whole := func(field, file string, n *uint16) {
		if set(n) {
			l.add(Write{Field: "blockIO." + field, Controller: "blkio", File: file, Value: unsigned(uint64(*n)), Back: unsigned(uint64(*n))})
		}
	}
	one := func(field, file, key string, n *uint16) {
		if set(n) {
			value := unsigned(uint64(*n))
			l.add(Write{Field: "blockIO.weightDevice." + field, Controller: "blkio", File: file, Value: key + " " + value,
				Key: key, Back: value, Rule: sameLine, Reset: key + " default"})
		}
	}
	whole("weight", file, b.Weight)
	whole("leafWeight", "blkio.leaf_weight", b.LeafWeight)
	for _, d := range b.WeightDevice {
		key := device(d.LinuxBlockIODevice)
		one("weight", file+"_device", key, d.Weight)
		one("leafWeight", "blkio.leaf_weight_device", key, d.LeafWeight)
	}
}

// weightsV2 plans the weights of version 2: BFQ's, with the numbers of version
// 1, else io.weight (of io.cost), with the line from 10..1000 to 1..10000 that
// runc and crun draw.
func (l *limits) weightsV2(b *specs.LinuxBlockIO) {
	file, convert := "io.weight", IOWeight
	if l.has("io", "io.bfq.weight") {
		file, convert = "io.bfq.weight", func(n uint16) uint64 { return uint64(n) }
	}
	write := func(field, key string, n *uint16) {
		if !set(n) {
			return
		}
		if *n < 10 || *n > 1000 {
			l.invalid("blockIO."+field, "%d: want 10 to 1000", *n)
		}
		value := unsigned(convert(*n))
		l.add(Write{Field: "blockIO." + field, Controller: "io", Unified: true, File: file, Value: key + " " + value,
			Key: key, Back: value, Rule: sameLine, Reset: key + " default"})
	}
	if set(b.LeafWeight) {
		l.lack("blockIO.leafWeight", "cgroup version 2 has none")
	}
	write("weight", "default", b.Weight)
	for _, d := range b.WeightDevice {
		if set(d.LeafWeight) {
			l.lack("blockIO.weightDevice.leafWeight", "cgroup version 2 has none")
		}
		write("weightDevice.weight", device(d.LinuxBlockIODevice), d.Weight)
	}
}

// IOWeight turns a weight of 10..1000 into one of 1..10000.
func IOWeight(n uint16) uint64 { return 1 + (uint64(max(n, 10))-10)*9999/990 }
