package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"

	"github.com/gantryd/gantry/sdk/netdriver"
)

const aMark = "gantry engine=E network=N"

func web(change func(*netdriver.Network)) netdriver.Network {
	n := netdriver.Network{ID: "N", Name: "web", Subnet: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}
	if change != nil {
		change(&n)
	}
	return n
}

func TestPlanNetwork(t *testing.T) {
	name := bridgeName("gantry", "N")
	mac := bridgeMAC(name).String()
	gateway := netip.MustParsePrefix("10.1.0.1/24")
	whole := bridgeState{Index: 7, Name: name, Alias: aMark, MTU: 1500, Up: true, Addrs: []netip.Prefix{gateway}}
	changed := func(f func(*bridgeState)) bridgeState { b := whole; f(&b); return b }
	for _, c := range []struct {
		name   string
		net    netdriver.Network
		found  bridgeState
		routes []route
		want   []op
	}{
		{"nothing there", web(nil), bridgeState{}, nil, []op{
			addBridge{Name: name, MAC: mac}, noIPv6{Link: name}, setAlias{Name: name, Alias: aMark},
			addAddr{Link: name, Addr: gateway}, setUp{Link: name},
		}},
		{"nothing there, with an MTU", web(func(n *netdriver.Network) { n.Options = map[string]string{optionMTU: "1400"} }), bridgeState{}, nil, []op{
			addBridge{Name: name, MAC: mac}, noIPv6{Link: name}, setMTU{Name: name, MTU: 1400}, setAlias{Name: name, Alias: aMark},
			addAddr{Link: name, Addr: gateway}, setUp{Link: name},
		}},
		{"all there", web(nil), whole, []route{{Prefix: gateway.Masked(), Index: 7}}, nil},
		{"switched off", web(nil), changed(func(b *bridgeState) { b.Up = false }), nil, []op{setUp{Link: name}}},
		{"address taken away", web(nil), changed(func(b *bridgeState) { b.Addrs = nil }), nil, []op{addAddr{Link: name, Addr: gateway}}},
		{"crashed before the mark", web(nil), bridgeState{Index: 7, Name: name, MTU: 1500}, nil, []op{
			setAlias{Name: name, Alias: aMark}, addAddr{Link: name, Addr: gateway}, setUp{Link: name},
		}},
		{"IPv6 switched on", web(nil), changed(func(b *bridgeState) { b.IPv6 = true }), nil, []op{noIPv6{Link: name}}},
		{"became internal", web(func(n *netdriver.Network) { n.Internal = true }), whole, nil,
			[]op{setAlias{Name: name, Alias: aMark + " internal"}}},
		{"options", web(func(n *netdriver.Network) {
			n.Options = map[string]string{optionMTU: "1400", optionMasq: "false"}
		}), whole, nil, []op{setMTU{Name: name, MTU: 1400}, setAlias{Name: name, Alias: aMark + " nomasq"}}},
		{"default route in halves, as a tunnel sets it", web(nil), whole,
			[]route{{Prefix: netip.MustParsePrefix("0.0.0.0/1"), Index: 2}, {Prefix: netip.MustParsePrefix("128.0.0.0/1"), Index: 2}}, nil},
		{"default route holds nothing", web(nil), whole, []route{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Index: 2}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := planNetwork("E", "gantry", c.net, c.found, c.routes)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestPlanNetworkRefuses(t *testing.T) {
	name := bridgeName("gantry", "N")
	option := func(k, v string) netdriver.Network {
		return web(func(n *netdriver.Network) { n.Options = map[string]string{k: v} })
	}
	subnet := func(s, gw string) netdriver.Network {
		return web(func(n *netdriver.Network) {
			n.Subnet, n.Gateway = netip.MustParsePrefix(s), netip.MustParseAddr(gw)
		})
	}
	wider := []route{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Index: 3, Link: "link tun0"}}
	for _, c := range []struct {
		name   string
		net    netdriver.Network
		found  bridgeState
		routes []route
		class  error
		says   string
	}{
		{"wider route", web(nil), bridgeState{}, wider, errdefs.ErrAlreadyExists, "10.0.0.0/8 of link tun0"},
		{"narrower route", web(nil), bridgeState{}, []route{{Prefix: netip.MustParsePrefix("10.1.0.7/32"), Link: "link wg0"}}, errdefs.ErrAlreadyExists, "wg0"},
		{"route of another link, own bridge there", web(nil), bridgeState{Index: 7, Name: name, Alias: aMark}, wider, errdefs.ErrAlreadyExists, "tun0"},
		{"bridge of another engine", web(nil), bridgeState{Index: 7, Name: name, Alias: "gantry engine=X network=N"}, nil, errdefs.ErrAlreadyExists, name},
		{"bridge without a mark, in use", web(nil), bridgeState{Index: 7, Name: name, Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}}, nil, errdefs.ErrAlreadyExists, name},
		{"unknown option", option("com.example.speed", "9"), bridgeState{}, nil, errdefs.ErrInvalidArgument, "com.example.speed"},
		{"MTU of words", option(optionMTU, "big"), bridgeState{}, nil, errdefs.ErrInvalidArgument, `"big"`},
		{"MTU too small", option(optionMTU, "67"), bridgeState{}, nil, errdefs.ErrInvalidArgument, "68"},
		{"masquerade perhaps", option(optionMasq, "perhaps"), bridgeState{}, nil, errdefs.ErrInvalidArgument, "perhaps"},
		{"no subnet", web(func(n *netdriver.Network) { n.Subnet = netip.Prefix{} }), bridgeState{}, nil, errdefs.ErrInvalidArgument, "web"},
		{"IPv6", subnet("fd00::/64", "fd00::1"), bridgeState{}, nil, errdefs.ErrNotImplemented, "fd00::/64"},
		{"host bits", subnet("10.1.0.5/24", "10.1.0.1"), bridgeState{}, nil, errdefs.ErrInvalidArgument, "10.1.0.5"},
		{"too small", subnet("10.1.0.0/31", "10.1.0.1"), bridgeState{}, nil, errdefs.ErrInvalidArgument, "/31"},
		{"gateway elsewhere", subnet("10.1.0.0/24", "10.2.0.1"), bridgeState{}, nil, errdefs.ErrInvalidArgument, "10.2.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops, err := planNetwork("E", "gantry", c.net, c.found, c.routes)
			if !errors.Is(err, c.class) || !strings.Contains(fmt.Sprint(err), c.says) || ops != nil {
				t.Errorf("got %+v, %v; want %v that says %q", ops, err, c.class, c.says)
			}
		})
	}
}

func TestPlanEndpoint(t *testing.T) {
	mac := net.HardwareAddr{2, 0x42, 10, 1, 0, 2}
	p := endpointPlan{
		Name: "gv1", Alias: "mark", Port: 21, Inner: 2, Bridge: bridgeState{Index: 7, Name: "gb1", MTU: 1400},
		Address: netip.MustParsePrefix("10.1.0.2/24"), MAC: mac,
	}
	wantInside := []linkOp{
		setLink{Index: 2, MAC: mac, MTU: 1400, Up: true},
		giveAddr{Index: 2, Addr: p.Address},
	}
	wantOutside := []linkOp{
		callLink{Index: 21, Name: "gv1"},
		setLink{Index: 21, Alias: "mark", MTU: 1400, Master: 7, Up: true},
	}
	outside, inside := planEndpoint(p)
	if !reflect.DeepEqual(inside, wantInside) || !reflect.DeepEqual(outside, wantOutside) {
		t.Errorf("without a gateway: %+v, %+v", inside, outside)
	}
	p.Gateway, p.Bridge.MTU = netip.MustParseAddr("10.1.0.1"), 1500
	wantInside[0] = setLink{Index: 2, MAC: mac, Up: true}
	wantInside = append(wantInside, routeVia{Index: 2, Gateway: p.Gateway})
	wantOutside[1] = setLink{Index: 21, Alias: "mark", Master: 7, Up: true}
	outside, inside = planEndpoint(p)
	if !reflect.DeepEqual(inside, wantInside) || !reflect.DeepEqual(outside, wantOutside) {
		t.Errorf("with a gateway and the usual MTU: %+v, %+v", inside, outside)
	}
}

func TestPlanRules(t *testing.T) {
	a := []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}
	b := []netip.Prefix{netip.MustParsePrefix("10.2.0.1/24")}
	got := planRules("E", "x", []bridgeState{
		{Name: "gb1", Alias: aMark, Addrs: a},
		{Name: "gb2", Alias: aMark + " internal", Addrs: b},
		{Name: "gb3", Alias: aMark + " nomasq", Addrs: b},
		{Name: "gb4", Alias: "gantry engine=other network=N", Addrs: b},
		{Name: "br0", Alias: "", Addrs: b},
	})
	want := ruleset{
		Table: "gantry-x", Bridges: []string{"gb1", "gb2", "gb3"}, Internal: []string{"gb2"},
		Masq: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestOutermost(t *testing.T) {
	var all []netip.Prefix
	for _, p := range []string{"10.2.0.0/24", "10.1.0.128/25", "10.1.0.0/24", "10.1.0.0/32", "10.1.1.0/24", "10.1.0.0/24"} {
		all = append(all, netip.MustParsePrefix(p))
	}
	if got := fmt.Sprint(outermost(all)); got != "[10.1.0.0/24 10.1.1.0/24 10.2.0.0/24]" {
		t.Errorf("got %v", got)
	}
}

func TestIntervals(t *testing.T) {
	got := ""
	for _, e := range intervals([]netip.Prefix{netip.MustParsePrefix("10.1.4.0/22"), netip.MustParsePrefix("255.255.255.0/24")}) {
		got += fmt.Sprint(e.Key, e.IntervalEnd, " ")
	}
	if want := "[10 1 4 0]false [10 1 8 0]true [255 255 255 0]false "; strings.ReplaceAll(got, "] ", "]") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	k := netdriver.EndpointKey{Network: "n", Container: "c", Run: 1}
	seen := map[string]string{}
	for what, name := range map[string]string{
		"bridge":           bridgeName("gantry", "n"),
		"other engine":     bridgeName("gantry2", "n"),
		"shifted border":   bridgeName("gantr", "yn"),
		"port":             portName("E", k),
		"next run":         portName("E", netdriver.EndpointKey{Network: "n", Container: "c", Run: 2}),
		"other network":    portName("E", netdriver.EndpointKey{Network: "m", Container: "c", Run: 1}),
		"shifted endpoint": portName("E", netdriver.EndpointKey{Network: "nc", Container: "", Run: 1}),
	} {
		if len(name) > 15 {
			t.Errorf("%s: %q has %d bytes, the kernel allows 15", what, name, len(name))
		}
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both %q", what, other, name)
		}
		seen[name] = what
	}
	for _, m := range []mark{{Engine: "e", Network: "n"}, {Engine: "e", Network: "n", Internal: true, NoMasq: true}} {
		if got, ok := parseMark(m.String()); !ok || got != m {
			t.Errorf("%q reads as %+v", m, got)
		}
	}
	for _, alias := range []string{"", "gantry engine=", "gantry engine=x", "gantry engine=x detached", "eth0"} {
		if m, ok := parseMark(alias); ok {
			t.Errorf("alias %q reads as %+v", alias, m)
		}
	}
	if got, ok := parseHolderKey(holderKey(k)); !ok || got != k {
		t.Errorf("key reads as %+v", got)
	}
	if _, err := endpointMAC("01:00:5e:00:00:01", netip.Addr{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("multicast hardware address: %v", err)
	}
}

func TestCgroupFiles(t *testing.T) {
	cgroup := "9:name=systemd:/\n8:pids:/gantry/drivers/net\n6:cpu,cpuacct:/gantry/drivers/net\n4:memory:/gantryx/y\n0::/gantry/drivers/net\n"
	if got := hierarchiesBelow([]byte(cgroup), "/gantry"); !reflect.DeepEqual(got, []string{"pids", "cpu,cpuacct", ""}) {
		t.Errorf("hierarchies: %q", got)
	}
}

func TestInterruptedListsAreReadAgain(t *testing.T) {
	calls := 0
	got, err := whole(func() ([]int, error) {
		calls++
		if calls < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 || calls != 3 {
		t.Errorf("%v, %v after %d calls", got, err, calls)
	}
	_, err = whole(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted })
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("interrupted for ever: %v", err)
	}
}
