package bridge

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// apply writes the table whole, in one transaction: whatever was in it, or
// whether somebody had flushed it, does not matter. Without a bridge the table
// goes. It reads, in nft's own words:
//
//	table inet gantry-<engine> {
//	  set bridges  { type ifname; }
//	  set same     { type ifname . ifname; }    # each bridge with itself
//	  set internal { type ifname; }
//	  set subnets  { type ipv4_addr; flags interval; }
//	  chain forward {
//	    type filter hook forward priority filter; policy accept;
//	    iifname . oifname @same accept          # seen here with br_netfilter only
//	    iifname @bridges oifname @bridges drop
//	    iifname @internal drop
//	    oifname @internal drop
//	    oifname @bridges ct state established,related accept
//	    oifname @bridges ct status dnat accept  # published ports
//	    oifname @bridges drop                   # neighbours with a route to here
//	  }
//	  chain postrouting {
//	    type nat hook postrouting priority srcnat; policy accept;
//	    ip saddr @subnets oifname != @bridges masquerade
//	  }
//	}
func (r ruleset) apply() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: r.Table}
	if len(r.Bridges) == 0 {
		c.DelTable(table)
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete nftables table %s: %w", r.Table, err)
		}
		return nil
	}
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	c.AddTable(table)
	if err := r.addRules(c, table); err != nil {
		return fmt.Errorf("plan nftables table %s: %w", r.Table, err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", r.Table, err)
	}
	return nil
}

func (r ruleset) addRules(c *nftables.Conn, table *nftables.Table) error {
	pair, err := nftables.ConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	if err != nil {
		return err
	}
	bridges := &nftables.Set{Table: table, Name: "bridges", KeyType: nftables.TypeIFName}
	same := &nftables.Set{Table: table, Name: "same", KeyType: pair, Concatenation: true}
	internal := &nftables.Set{Table: table, Name: "internal", KeyType: nftables.TypeIFName}
	subnets := &nftables.Set{Table: table, Name: "subnets", KeyType: nftables.TypeIPAddr, Interval: true,
		KeyByteOrder: binaryutil.BigEndian}
	var pairs []nftables.SetElement
	for _, b := range r.Bridges {
		pairs = append(pairs, nftables.SetElement{Key: append(ifname(b), ifname(b)...)})
	}
	for _, s := range []struct {
		set      *nftables.Set
		elements []nftables.SetElement
	}{
		{bridges, names(r.Bridges)}, {same, pairs}, {internal, names(r.Internal)}, {subnets, intervals(r.Masq)},
	} {
		if err := c.AddSet(s.set, s.elements); err != nil {
			return err
		}
	}
	accept := nftables.ChainPolicyAccept
	forward := c.AddChain(&nftables.Chain{Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	postrouting := c.AddChain(&nftables.Chain{Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &accept})

	verdict := func(k expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: k} }
	in := &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}
	out := &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_1}
	outBeside := &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2}
	add := func(chain *nftables.Chain, e ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: e})
	}
	add(forward, in, outBeside, lookup(same, false), verdict(expr.VerdictAccept))
	add(forward, in, lookup(bridges, false), out, lookup(bridges, false), verdict(expr.VerdictDrop))
	add(forward, in, lookup(internal, false), verdict(expr.VerdictDrop))
	add(forward, out, lookup(internal, false), verdict(expr.VerdictDrop))
	answers := uint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	add(forward, append(append([]expr.Any{out, lookup(bridges, false)}, ctHas(expr.CtKeySTATE, answers)...), verdict(expr.VerdictAccept))...)
	add(forward, append(append([]expr.Any{out, lookup(bridges, false)}, ctHas(expr.CtKeySTATUS, statusDNAT)...), verdict(expr.VerdictAccept))...)
	add(forward, out, lookup(bridges, false), verdict(expr.VerdictDrop))
	add(postrouting,
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // source address
		lookup(subnets, false), out, lookup(bridges, true), &expr.Masq{})
	return nil
}

// lookup matches what is in register 1 (and on) against a set.
func lookup(s *nftables.Set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.Name, SetID: s.ID, Invert: invert}
}

// statusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h: the
// connection's first packet was sent elsewhere by a rule.
const statusDNAT = 1 << 5

// ctHas matches connections of which a bit is set in a field.
func ctHas(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// ifname is a link's name as the kernel compares it: 16 bytes, filled with 0.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func names(links []string) []nftables.SetElement {
	var e []nftables.SetElement
	for _, l := range links {
		e = append(e, nftables.SetElement{Key: ifname(l)})
	}
	return e
}

// intervals are half open: the first address, and the first one behind.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	var e []nftables.SetElement
	for _, p := range prefixes {
		e = append(e, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if end := last(p).Next(); end.IsValid() {
			e = append(e, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return e
}

// last is the highest address of an IPv4 prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
