package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/query"
)

func (a *app) infoCmd() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "info [flags]", Short: "Tell about the engine and the machine", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			var i query.Info
			if err := a.query(c.Context(), query.EngineInfo, nil, &i); err != nil {
				return err
			}
			if format != "" {
				return writeFormat(a.Stdout, format, i)
			}
			if err := align(a.Stdout, infoLines(&i, time.Now())); err != nil {
				return err
			}
			for _, w := range i.Warnings {
				fmt.Fprintln(a.Stderr, "warning:", w)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template: '{{.Containers}}'")
	return c
}

func infoLines(i *query.Info, now time.Time) [][]string {
	lines := [][]string{
		{"Engine", fmt.Sprintf("%s (%s)", i.Engine.Name, i.Engine.ID)},
		{"Version", i.Engine.Version},
		{"Process", fmt.Sprintf("pid %d, up %s", i.PID, humanTime(now.Sub(i.Started)))},
		{"Containers", fmt.Sprintf("%d (%d running)", i.Containers, i.Running)},
		{"Images", fmt.Sprint(i.Images)},
		{"Networks", fmt.Sprint(i.Networks)},
		{"Jobs", fmt.Sprintf("%d open; %d steps owed, %d of them in flight", i.OpenJobs, i.Owed, i.InFlight)},
		{"Log", fmt.Sprintf("%d events", i.Seq)},
		{"Drivers", fmt.Sprintf("graph %s, exec %s, image %s", i.Engine.Drivers.Graph, i.Engine.Drivers.Exec, i.Engine.Drivers.Image)},
		{"Addresses", fmt.Sprintf("%s in networks of /%d", i.Engine.Pool, i.Engine.PoolBits)},
		{"Data", i.Root},
		{"Sockets", i.Run},
		{"Machine", fmt.Sprintf("%s, %d CPUs, %s", i.Hostname, i.CPUs, binarySize(i.MemoryBytes))},
		{"System", fmt.Sprintf("%s, Linux %s, %s", i.OS, i.Kernel, i.Architecture)},
	}
	for n, p := range i.Security {
		label := ""
		if n == 0 {
			label = "Security"
		}
		lines = append(lines, []string{label, protectionWords(&p)})
	}
	if len(i.Strays) > 0 {
		lines = append(lines, []string{"Strays", fmt.Sprintf("%d things that belong to nobody are kept: gantry info --format json tells which", len(i.Strays))})
	}
	return lines
}

// protectionWords say what keeps containers in, or what follows from its absence.
func protectionWords(p *query.Protection) string {
	s := p.Name
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if !p.Have && p.Follows != "" {
		s += " (" + p.Follows + ")"
	}
	return s
}
