package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// shown is the state as it is printed, in runc's order.
type shown struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	PID         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

// show looks at a container now.
func (c *container) show() shown {
	status, pid := c.status()
	return shown{
		Version: c.Version, ID: c.ID, PID: pid, Status: status, Bundle: c.Bundle, Rootfs: c.Rootfs,
		Created: c.Created, Annotations: c.Annotations,
	}
}

// printJSON writes a value for people and programs.
func printJSON(v any, indent bool) error {
	enc := json.NewEncoder(stdout())
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// runState is the command state.
func runState(_ context.Context, g *globals, args []string) (int, error) {
	ids, err := parse(newFlags("state"), g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	c, err := load(g, ids[0])
	if err != nil {
		return exitFailed, err
	}
	return 0, printJSON(c.show(), true)
}

// runList is the command list.
func runList(_ context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("list")
	var format string
	var quiet bool
	both(fs, "format", "f", func(n string) { fs.StringVar(&format, n, "table", "table or json") })
	both(fs, "quiet", "q", func(n string) { fs.BoolVar(&quiet, n, false, "ids only") })
	if _, err := parse(fs, g, args, 0, 0); err != nil {
		return exitUsage, err
	}
	all, err := listAll(g)
	if err != nil {
		return exitFailed, err
	}
	switch {
	case quiet:
		for _, s := range all {
			fmt.Println(s.ID)
		}
		return 0, nil
	case format == "json":
		return 0, printJSON(all, false)
	case format != "table":
		return exitUsage, errclass.Errorf(errdefs.ErrInvalidArgument, "format %q: want table or json", format)
	}
	w := tabwriter.NewWriter(stdout(), 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return 0, w.Flush()
}

// listAll looks at every container below the root.
func listAll(g *globals) ([]shown, error) {
	entries, err := os.ReadDir(g.root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := []shown{}
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		c, err := load(g, e.Name())
		if errors.Is(err, errdefs.ErrNotFound) { // it has just gone
			continue
		}
		if err != nil {
			g.log.warn("%v", err)
			continue
		}
		s := c.show()
		if u, err := user.LookupId(strconv.Itoa(c.Owner)); err == nil {
			s.Owner = u.Username
		} else {
			s.Owner = "#" + strconv.Itoa(c.Owner)
		}
		out = append(out, s)
	}
	return out, nil
}

// runPs is the command ps: pids as JSON, or what ps(1) says about them.
func runPs(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("ps")
	var format string
	both(fs, "format", "f", func(n string) { fs.StringVar(&format, n, "table", "table or json") })
	words, err := parseLeading(fs, g, args, 1)
	if err != nil {
		return exitUsage, err
	}
	id := words[0]
	if err := parseSome(fs, g, words[1:]); err == nil && fs.NFlag() > 0 { // "ps ID --format json" is common
		words = append([]string{id}, fs.Args()...)
	}
	if format != "table" && format != "json" {
		return exitUsage, errclass.Errorf(errdefs.ErrInvalidArgument, "format %q: want table or json", format)
	}
	c, err := load(g, id)
	if err != nil {
		return exitFailed, err
	}
	group, err := c.group()
	if err != nil {
		return exitFailed, err
	}
	defer group.Close()
	pids, err := group.Pids()
	if err != nil {
		return exitFailed, err
	}
	if format == "json" {
		if pids == nil {
			pids = []int{}
		}
		return 0, printJSON(pids, false)
	}
	options := words[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	return 0, psTable(ctx, pids, options)
}

// psTable prints the lines of ps(1) that are about some processes.
func psTable(ctx context.Context, pids []int, options []string) error {
	out, err := exec.CommandContext(ctx, "ps", options...).Output()
	if err != nil {
		return fmt.Errorf("run ps %s: %w", strings.Join(options, " "), err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "ps %s shows no column PID", strings.Join(options, " "))
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}
