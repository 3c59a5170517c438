package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/query"
)

// defaultRoot is where gantryd keeps its data if nobody says otherwise.
const defaultRoot = "/var/lib/gantry"

// logDir is the directory of the event log below the engine's root.
func (a *app) logDir(ctx context.Context, root string) (string, error) {
	if root == "" {
		root = defaultRoot
		if a.host != "" || a.hasHost() { // ask the engine that is meant
			var info query.Info
			if err := a.query(ctx, query.EngineInfo, nil, &info); err != nil {
				return "", err
			}
			root = info.Root
		}
	}
	dir := filepath.Join(root, "log")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("find the event log: %w", err)
	}
	return dir, nil
}

func (a *app) hasHost() bool {
	host, ok := a.LookupEnv("GANTRY_HOST")
	return ok && host != ""
}

func rootFlag(c *cobra.Command, root *string) {
	c.Flags().StringVar(root, "root", "", "the engine's data directory (default: that of the engine named by -H or GANTRY_HOST, or "+defaultRoot+")")
}

func (a *app) logVerifyCmd() *cobra.Command {
	var root string
	c := &cobra.Command{
		Use: "verify [flags]", Short: "Read the whole log and check every hash", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.logDir(c.Context(), root)
			if err != nil {
				return err
			}
			sum, err := eventlog.Verify(c.Context(), dir, func(f eventlog.Finding) {
				fmt.Fprintln(a.Stdout, f)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Stdout, "%s in %s and %s, %s\n", counted(sum.Events, "event"), counted(sum.Records, "record"), counted(sum.Segments, "segment"), binarySize(sum.Bytes))
			if sum.Head.Seq > 0 {
				fmt.Fprintf(a.Stdout, "head %d %s\n", sum.Head.Seq, sum.Head.Hash)
			}
			if sum.Damages > 0 {
				return &statusError{code: exitFailure, text: fmt.Sprintf("the log is damaged in %d places", sum.Damages),
					hint: "stop the engine; gantry log repair takes what is missing from the replica"}
			}
			if sum.Torn {
				fmt.Fprintln(a.Stdout, "whole, but for an unfinished write at the end: a running engine is about to end it, one that starts cuts it")
			} else {
				fmt.Fprintln(a.Stdout, "whole")
			}
			return nil
		},
	}
	rootFlag(c, &root)
	return c
}

func (a *app) logExportCmd() *cobra.Command {
	var root string
	c := &cobra.Command{
		Use: "export [flags]", Short: "Write the log as JSON lines, also a damaged one", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.logDir(c.Context(), root)
			if err != nil {
				return err
			}
			sum, err := eventlog.Export(c.Context(), dir, a.Stdout)
			if err != nil {
				return err
			}
			if sum.Damages > 0 {
				return &statusError{code: exitFailure, text: fmt.Sprintf("the log is damaged in %d places: the lines \"damage\" tell where", sum.Damages)}
			}
			return nil
		},
	}
	rootFlag(c, &root)
	return c
}

// engineProgram is gantryd beside our own program, or on the path.
func engineProgram(name string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), name)
			if _, err := os.Stat(beside); err == nil {
				return beside, nil
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: it is neither beside gantry nor on the path: %w", name, errdefs.ErrNotFound)
	}
	return path, nil
}

// runProgram runs one of our programs in our place and ends with its code.
func (a *app) runProgram(ctx context.Context, name string, args ...string) error {
	path, err := engineProgram(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Stdin, a.Stdout, a.Stderr
	if f := fileOf(a.Stdout); f != nil { // its own then, not a pipe to us
		cmd.Stdout = f
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &statusError{code: max(exit.ExitCode(), exitFailure)}
	}
	return err
}

func (a *app) logRepairCmd() *cobra.Command {
	var root string
	c := &cobra.Command{
		Use: "repair [flags]", Short: "Rebuild damaged parts of the log from its replica; no engine may run", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if root == "" {
				root = defaultRoot
			}
			// The replica is a stream of the bus's server, which is a part of gantryd.
			return a.runProgram(c.Context(), "gantryd", "--root", root, "--repair")
		},
	}
	rootFlag(c, &root)
	return c
}
