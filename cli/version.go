package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/query"
)

func (a *app) versionCmd() *cobra.Command {
	var engine bool
	var format string
	c := &cobra.Command{
		Use: "version [flags]", Short: "Tell the version", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			v := versions{Client: clientVersion{a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}}
			if engine {
				var info query.Info
				if err := a.query(c.Context(), query.EngineInfo, nil, &info); err != nil {
					return err
				}
				v.Server = &serverVersion{info.Engine.Version, info.Engine.Name, info.Engine.ID, info.Kernel}
			}
			if format != "" {
				return writeFormat(a.Stdout, format, v)
			}
			fmt.Fprintf(a.Stdout, "gantry %s (%s, %s/%s)\n", v.Client.Version, v.Client.GoVersion, v.Client.Os, v.Client.Arch)
			if v.Server != nil {
				fmt.Fprintf(a.Stdout, "engine %s (%s)\n", v.Server.Version, v.Server.Name)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&engine, "engine", false, "also the engine's")
	c.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template: '{{.Client.Version}}'")
	return c
}

type versions struct {
	Client clientVersion
	Server *serverVersion `json:",omitempty"`
}

type clientVersion struct{ Version, GoVersion, Os, Arch string }

type serverVersion struct{ Version, Name, ID, KernelVersion string }
