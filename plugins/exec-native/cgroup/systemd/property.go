package systemd

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	godbus "github.com/godbus/dbus/v5"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// property makes one of systemd's.
func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// properties are the limits as systemd wants them. It writes them itself when
// it realizes the unit again; what it has no word for it leaves alone, and
// stays as this engine has written it.
func properties(r *specs.LinuxResources, unified bool) ([]dbus.Property, error) {
	if r == nil {
		return nil, nil
	}
	var out []dbus.Property
	if r.Memory != nil {
		out = append(out, memory(r.Memory, unified)...)
	}
	if r.CPU != nil {
		out = append(out, cpu(r.CPU, unified)...)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		most := uint64(math.MaxUint64)
		if *r.Pids.Limit >= 0 {
			most = uint64(max(*r.Pids.Limit, 1)) // systemd refuses 0
		}
		out = append(out, property("TasksMax", most))
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if unified {
			out = append(out, property("IOWeight", cgroup.IOWeight(*b.Weight)))
		} else {
			out = append(out, property("BlockIOWeight", uint64(*b.Weight)))
		}
	}
	if !unified && len(r.Devices) > 0 {
		devices, err := devices(r.Devices)
		if err != nil {
			return nil, err
		}
		out = append(out, devices...)
	}
	return out, nil
}

// bytesOf is a limit of bytes: none is infinity, the largest number.
func bytesOf(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// memory are the properties of memory. Version 1 has one for the limit alone.
func memory(m *specs.LinuxMemory, unified bool) []dbus.Property {
	var out []dbus.Property
	limited := m.Limit != nil && *m.Limit != 0
	if limited && unified {
		out = append(out, property("MemoryMax", bytesOf(*m.Limit)))
	} else if limited {
		out = append(out, property("MemoryLimit", bytesOf(*m.Limit)))
	}
	if !unified {
		return out
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		out = append(out, property("MemoryLow", bytesOf(*m.Reservation)))
	}
	switch {
	case m.Swap != nil && *m.Swap < 0, m.Swap == nil && limited && *m.Limit < 0:
		out = append(out, property("MemorySwapMax", uint64(math.MaxUint64)))
	case m.Swap != nil && *m.Swap > 0 && limited && *m.Swap >= *m.Limit:
		out = append(out, property("MemorySwapMax", uint64(*m.Swap-*m.Limit)))
	}
	return out
}

// cpu are the properties of processors.
func cpu(c *specs.LinuxCPU, unified bool) []dbus.Property {
	var out []dbus.Property
	idle := c.Idle != nil && *c.Idle == 1
	if c.Shares != nil && *c.Shares != 0 && !idle {
		if unified {
			out = append(out, property("CPUWeight", cgroup.Weight(*c.Shares)))
		} else {
			out = append(out, property("CPUShares", *c.Shares))
		}
	}
	if c.Quota != nil && *c.Quota != 0 {
		out = append(out, property("CPUQuotaPerSecUSec", quotaPerSecond(*c.Quota, c.Period)))
	}
	if c.Period != nil && *c.Period != 0 {
		out = append(out, property("CPUQuotaPeriodUSec", *c.Period))
	}
	if !unified {
		return out
	}
	for _, s := range []struct{ name, list string }{{"AllowedCPUs", c.Cpus}, {"AllowedMemoryNodes", c.Mems}} {
		if mask, ok := maskOf(s.list); ok {
			out = append(out, property(s.name, mask))
		}
	}
	return out
}

// quotaPerSecond is the time in microseconds for each second. systemd keeps
// whole hundredths of a processor, so it is rounded up to one.
func quotaPerSecond(quota int64, period *uint64) uint64 {
	const second, hundredth, usual = 1_000_000, 10_000, 100_000
	if quota < 0 {
		return math.MaxUint64
	}
	length := uint64(usual)
	if period != nil && *period != 0 {
		length = *period
	}
	n := uint64(quota) * second / length
	return (n + hundredth - 1) / hundredth * hundredth
}

// maskOf turns a list of processors into bits, lowest first.
func maskOf(list string) ([]byte, bool) {
	numbers, ok := cgroup.ParseList(list)
	if !ok || len(numbers) == 0 {
		return nil, false
	}
	mask := make([]byte, numbers[len(numbers)-1]/8+1)
	for _, n := range numbers {
		mask[n/8] |= 1 << (n % 8)
	}
	return mask, true
}

// allowed is an entry of DeviceAllow.
type allowed struct{ Path, Access string }

// devices are the rules of version 1 again: systemd would else open the list
// to everything when it writes it anew. It knows a list of what is allowed,
// and nothing else.
func devices(rules []specs.LinuxDeviceCgroup) ([]dbus.Property, error) {
	var list []allowed
	strict := false
	for _, r := range rules {
		wild := (r.Type == "" || r.Type == "a") && !numbered(r.Major) && !numbered(r.Minor)
		switch {
		case wild && (r.Access == "" || len(r.Access) == 3):
			strict, list = !r.Allow, nil
		case wild || !r.Allow || (r.Type != "b" && r.Type != "c"):
			return nil, errclass.Errorf(errdefs.ErrNotImplemented, "systemd has no word for device rule %+v", r)
		default:
			path, err := devicePath(r)
			if err != nil {
				return nil, err
			}
			access := r.Access
			if access == "" {
				access = "rwm"
			}
			list = append(list, allowed{path, access})
		}
	}
	policy := "auto"
	if strict {
		policy = "strict"
	}
	return []dbus.Property{property("DevicePolicy", policy), property("DeviceAllow", list)}, nil
}

// numbered reports whether a major or minor is one and not all.
func numbered(n *int64) bool { return n != nil && *n >= 0 }

// devicePath spells a rule's devices for systemd. All minors of a major go by
// the driver's name, of which systemd finds the number again.
func devicePath(r specs.LinuxDeviceCgroup) (string, error) {
	kind := map[string]string{"b": "block", "c": "char"}[r.Type]
	switch {
	case !numbered(r.Major) && !numbered(r.Minor):
		return kind + "-*", nil
	case numbered(r.Major) && numbered(r.Minor):
		return fmt.Sprintf("/dev/%s/%d:%d", kind, *r.Major, *r.Minor), nil
	case numbered(r.Major):
		if name, ok := driverName(kind, *r.Major); ok {
			return kind + "-" + name, nil
		}
	}
	return "", errclass.Errorf(errdefs.ErrNotImplemented, "systemd has no word for device rule %+v", r)
}

// nameIn finds a major's name in the text of /proc/devices.
func nameIn(text, kind string, major int64) (string, bool) {
	section := map[string]string{"char": "Character devices:", "block": "Block devices:"}[kind]
	here := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, ":") {
			here = line == section
			continue
		}
		number, name, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseInt(number, 10, 64); here && err == nil && n == major {
			return name, true
		}
	}
	return "", false
}
