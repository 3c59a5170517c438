package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// options are the flags, checked.
type options struct {
	root, run, name string
	driverPath      []string
	events          string
	controlGID      *int
	readGID         *int
	pool            netip.Prefix
	ids             core.IDPool  // of private user namespaces
	logging         core.Logging // of containers that say nothing else

	help, check, repair, version, debug bool
}

// longestRun is how long the name of the run directory may be: a socket's address
// holds 107 bytes, and the longest one below it needs 48 of them.
const longestRun = 59

// nameRule is what a driver takes as an engine's name: names of kernel objects
// derive from it.
const nameRule = `^[a-z0-9][a-z0-9-]{0,31}$`

func readFlags(args []string) (options, error) {
	var o options
	var path, group, readGroup, pool string
	f := flag.NewFlagSet("gantryd", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.root, "root", "/var/lib/gantry", "directory of the data")
	f.StringVar(&o.run, "run", "/run/gantry", "directory of sockets and of what a reboot ends; on tmpfs")
	f.StringVar(&o.name, "name", "gantry", "name of the engine: its bridge, tables and cgroups derive from it")
	f.StringVar(&path, "driver-path", "", "directories of driver programs, with colons between (default: that of gantryd, then /usr/libexec/gantry)")
	f.StringVar(&o.events, "events", "", "loopback address for stock NATS clients that read events, e.g. 127.0.0.1:4222 (default: none)")
	f.StringVar(&group, "group", "", "group that may control the engine, beside root")
	f.StringVar(&readGroup, "read-group", "", "group that may read")
	f.StringVar(&pool, "pool", "", "IPv4 network that subnets are taken from; holds from the first start on (default: derived from the name)")
	f.Func("id-pool", "host ids FIRST-LAST that private user namespaces are given, 65536 each; holds from the first start on (default: 1073741824-1879048191)",
		func(s string) (err error) { o.ids, err = idPool(s); return err })
	f.Func("log-driver", "log driver of containers that name none: local (as json-file), or none", func(s string) error { return logDriver(s, &o.logging) })
	f.Func("log-opt", "log option of containers that do not set it: max-size=20m, max-file=5, max-age=24h, mode=blocking, max-buffer-size=1m; may be repeated",
		func(s string) error { return logOption(s, &o.logging) })
	f.BoolVar(&o.check, "check", false, "tell what this kernel and machine can and cannot do, and end")
	f.BoolVar(&o.repair, "repair", false, "rebuild what is damaged in the event log from its replica, name what was rebuilt, and end")
	f.BoolVar(&o.version, "version", false, "tell the version and end")
	f.BoolVar(&o.debug, "D", false, "log for debugging")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		o.help = true
		fmt.Println("Usage: gantryd [flags]")
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
		return o, nil
	}
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err == nil {
		o.controlGID, err = groupID(group)
	}
	if err == nil {
		o.readGID, err = groupID(readGroup)
	}
	if err == nil && pool != "" {
		o.pool, err = netip.ParsePrefix(pool)
	}
	if err == nil {
		o.driverPath, err = driverPath(path)
	}
	if err == nil {
		err = o.complete()
	}
	return o, err
}

// complete checks what was given and makes paths absolute.
func (o *options) complete() error {
	if !regexp.MustCompile(nameRule).MatchString(o.name) {
		return fmt.Errorf("name %q: use at most 32 of [a-z0-9-], the first a letter or digit", o.name)
	}
	if o.pool.IsValid() && (!o.pool.Addr().Is4() || o.pool.Bits() > 30) {
		return fmt.Errorf("pool %v: use an IPv4 network of /30 or larger", o.pool)
	}
	for _, dir := range []*string{&o.root, &o.run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if len(o.run) > longestRun {
		return fmt.Errorf("run directory %s: its name is %d bytes long, sockets in it need one of at most %d", o.run, len(o.run), longestRun)
	}
	return nil
}

// idPool reads "FIRST-LAST", whole ranges of ids.
func idPool(text string) (core.IDPool, error) {
	var first, last uint32
	if n, err := fmt.Sscanf(text, "%d-%d", &first, &last); err != nil || n != 2 || fmt.Sprintf("%d-%d", first, last) != text {
		return core.IDPool{}, fmt.Errorf("use FIRST-LAST")
	}
	if first == 0 || first%core.IDRange != 0 || last < first || (last-first)%core.IDRange != core.IDRange-1 || last > math.MaxUint32-core.IDRange {
		return core.IDPool{}, fmt.Errorf("it begins at a multiple of %d above 0, ends before another one, and leaves out the last range of all", core.IDRange)
	}
	return core.IDPool{First: first, Ranges: int((last-first)/core.IDRange) + 1}, nil
}

func groupID(name string) (*int, error) {
	if name == "" {
		return nil, nil
	}
	gid, err := strconv.Atoi(name)
	if err != nil {
		g, err := user.LookupGroup(name)
		if err != nil {
			return nil, err
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, err
		}
	}
	return &gid, nil
}

func driverPath(list string) ([]string, error) {
	if list != "" {
		return filepath.SplitList(list), nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return []string{filepath.Dir(self), "/usr/libexec/gantry"}, nil
}

// libexec is the first directory of the driver path that has the shim.
func (o *options) libexec() string {
	for _, dir := range o.driverPath {
		if _, err := os.Stat(filepath.Join(dir, "gantry-shim")); err == nil {
			return dir
		}
	}
	return o.driverPath[0]
}

func (o *options) logger() *slog.Logger {
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// report says why gantryd cannot go on, and what to do.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "gantryd: %v\n", strings.TrimSpace(err.Error()))
	if hint := errclass.Hint(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// cgroup is the parent of all cgroups of the engine, in every hierarchy.
func (o *options) cgroup() string {
	if o.name == "gantry" {
		return "/gantry"
	}
	return "/gantry-" + o.name
}
