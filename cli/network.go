package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) networkCmd() *cobra.Command {
	return group("network", "Networks of containers", a.networkLsCmd(), a.networkCreateCmd(), a.networkRmCmd(), a.inspectOf("network"))
}

func (a *app) networkLsCmd() *cobra.Command {
	var filters []string
	l := listing{
		id:      "ID",
		columns: []column{{"NETWORK ID", "ID"}, {"NAME", "Name"}, {"DRIVER", "Driver"}, {"SCOPE", "Scope"}},
		more:    []column{{"SUBNET", "Subnet"}, {"GATEWAY", "Gateway"}, {"INTERNAL", "Internal"}},
	}
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"}, Short: "List networks", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			var out query.Networks
			if err := a.query(c.Context(), query.NetworkList, nil, &out); err != nil {
				return err
			}
			var rows []row
			for _, n := range out.Networks {
				r := row{
					"ID": l.idOf(string(n.ID)), "Name": n.Name, "Driver": n.Driver, "Scope": "local",
					"Subnet": n.Subnet, "Gateway": n.Gateway, "Internal": strconv.FormatBool(n.Internal),
				}
				keep, err := networkFits(r, filters)
				if err != nil {
					return &usageError{err, c.CommandPath()}
				}
				if keep {
					rows = append(rows, r)
				}
			}
			return l.write(a.Stdout, rows)
		},
	}
	l.register(c)
	listVarP(c.Flags(), &filters, "filter", "f", "only some: name=, id=, driver=")
	return c
}

func networkFits(r row, filters []string) (bool, error) {
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "name":
			if !strings.Contains(r["Name"], value) {
				return false, nil
			}
		case "id":
			if !strings.HasPrefix(r["ID"], value) && !strings.HasPrefix(value, r["ID"]) {
				return false, nil
			}
		case "driver":
			if r["Driver"] != value {
				return false, nil
			}
		default:
			return false, badFilter(f, "it is not supported yet")
		}
	}
	return true, nil
}

func (a *app) networkCreateCmd() *cobra.Command {
	var driver, subnet, gateway string
	var internal bool
	var options, labels []string
	c := &cobra.Command{
		Use: "create [flags] NAME", Short: "Make a network", Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cmd := &core.NewNetwork{ID: core.NetworkID(newID()), Name: args[0], Driver: driver, Internal: internal}
			err := readNetwork(cmd, subnet, gateway, options, labels)
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			if _, err := a.finish(c.Context(), cmd); err != nil {
				return err
			}
			fmt.Fprintln(a.Stdout, cmd.ID)
			return nil
		},
	}
	c.Flags().StringVarP(&driver, "driver", "d", "", "driver of it (default bridge)")
	c.Flags().StringVar(&subnet, "subnet", "", "addresses of it, e.g. 10.1.2.0/24 (default: out of the engine's pool)")
	c.Flags().StringVar(&gateway, "gateway", "", "address of the gateway (default: the first one)")
	c.Flags().BoolVar(&internal, "internal", false, "without a way out")
	listVarP(c.Flags(), &options, "opt", "o", "an option of the driver: NAME=value")
	listVar(c.Flags(), &labels, "label", "set a label: NAME=value")
	return c
}

func readNetwork(cmd *core.NewNetwork, subnet, gateway string, options, labels []string) error {
	var err error
	if subnet != "" {
		if cmd.Subnet, err = netip.ParsePrefix(subnet); err != nil {
			return fmt.Errorf("subnet %q: want e.g. 10.1.2.0/24", subnet)
		}
	}
	if gateway != "" {
		if cmd.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return fmt.Errorf("gateway %q: want an address, e.g. 10.1.2.1", gateway)
		}
	}
	if cmd.Options, err = pairs("option", options); err != nil {
		return err
	}
	cmd.Labels, err = pairs("label", labels)
	return err
}

func (a *app) networkRmCmd() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm [flags] NETWORK [NETWORK...]", Aliases: []string{"remove"}, Short: "Remove networks", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(args, func(ref string) error {
				err := a.removeNetwork(c.Context(), ref)
				if force && errdefs.IsNotFound(err) {
					return nil
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "one that is not there is no error")
	return c
}

func (a *app) removeNetwork(ctx context.Context, ref string) error {
	r, err := a.resolve(ctx, core.KindNetwork, ref)
	if err != nil {
		return err
	}
	if _, err := a.finish(ctx, &core.DropNetwork{ID: core.NetworkID(r.ID)}); err != nil {
		return err
	}
	fmt.Fprintln(a.Stdout, ref)
	return nil
}
