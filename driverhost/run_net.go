package driverhost

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func runNet(ctx context.Context, d netdriver.Driver, st core.Step) (core.Result, error) {
	switch st := st.(type) {
	case *core.CreateNetwork:
		n := netdriver.Network{ID: string(st.Network), Name: st.Name, Options: st.Options, Internal: st.Internal}
		if st.Subnet != "" {
			var err error
			if n.Subnet, err = netip.ParsePrefix(st.Subnet); err != nil {
				return core.Result{}, fmt.Errorf("read the subnet: %w", err)
			}
			if n.Gateway, err = netip.ParseAddr(st.Gateway); err != nil {
				return core.Result{}, fmt.Errorf("read the gateway: %w", err)
			}
		}
		return core.Result{}, d.CreateNetwork(ctx, n)
	case *core.RemoveNetwork:
		return core.Result{}, d.RemoveNetwork(ctx, string(st.Network))
	case *core.AttachNetwork:
		e, err := d.Attach(ctx, netdriver.Attach{
			EndpointKey: netdriver.EndpointKey{Network: string(st.Network), Container: string(st.Container), Run: st.Run},
			Hostname:    st.Hostname, Names: st.Names, UserNS: netdriver.Namespace(st.UserNS),
			Address: st.Address.IP, Gateway: st.Address.Gateway, MAC: st.Address.MAC,
		})
		if err != nil {
			return core.Result{}, err
		}
		return core.Result{Endpoint: &core.Endpoint{
			Namespace: core.Namespace(e.Namespace), Interface: e.Interface, Files: fromMounts(e.Files),
		}}, nil
	case *core.DetachNetwork:
		return core.Result{}, d.Detach(ctx, netdriver.EndpointKey{
			Network: string(st.Network), Container: string(st.Container), Run: st.Run,
		})
	case *core.GiveBack:
		switch st.Item.Kind {
		case "network":
			return core.Result{}, d.RemoveNetwork(ctx, st.Item.Key)
		case "endpoint":
			return core.Result{}, d.Detach(ctx, netdriver.EndpointKey{
				Network: st.Item.Network, Container: st.Item.Key, Run: st.Item.Run,
			})
		}
	}
	return core.Result{}, noRunner(st)
}
