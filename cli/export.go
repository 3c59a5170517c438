package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/query"
)

func (a *app) exportCmd() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "export [flags] CONTAINER", Short: "Write the root filesystem of a container as a tar", Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				if err := toTerminal(a.Stdout, "use the -o flag or redirect"); err != nil {
					return err
				}
				return a.export(c.Context(), args[0], a.Stdout)
			}
			return replaceFile(output, func(w io.Writer) error { return a.export(c.Context(), args[0], w) })
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write to this file")
	return c
}

func (a *app) export(ctx context.Context, ref string, w io.Writer) error {
	d, err := a.openCopy(ctx, query.OpCopyOut, query.CopyIn{Ref: ref, Path: "/", WholeRoot: true})
	if err != nil {
		return err
	}
	defer d.close()
	_, err = io.Copy(w, d.tar)
	if errors.Is(err, unix.EPIPE) {
		// Nobody reads our output any more. A write would have ended us with
		// SIGPIPE, as it ends other commands; splice(2) does not in Go.
		return &statusError{code: 128 + int(unix.SIGPIPE)}
	}
	return d.end(err)
}

// replaceFile writes a file beside its place first: what is there stays until
// the new one is whole. What is no file is not replaced: /dev/null is to stay what
// it is. A link stays, too: what it leads to is replaced.
func replaceFile(name string, write func(io.Writer) error) error {
	switch info, err := os.Stat(name); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file: name one, or use standard output", name)
	default:
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one that matters
	}
	return err
}
