package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/query"
)

func (a *app) topCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Short: "List the processes of a container", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			columns, err := psColumns(args[1:])
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			var out query.Top
			if err := a.ask(c.Context(), query.OpTop, query.RefIn{Ref: args[0]}, &out); err != nil {
				return err
			}
			return writeTop(a.Stdout, columns, out.Tasks, time.Now())
		},
	}
	c.Flags().SetInterspersed(false) // the options behind are ps's
	return c
}

// ask opens a stream that has nothing but its answer.
func (a *app) ask(ctx context.Context, op string, in, out any) error {
	st, err := a.stream(ctx, op, in)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := json.Unmarshal(st.Body, out); err != nil {
		return fmt.Errorf("read the answer to %s: %w", op, err)
	}
	return nil
}

// psColumn is a column of ps: its names, its header, and what it shows.
type psColumn struct {
	names  string
	header string
	show   func(t *query.Task, now time.Time) string
}

// psAll are the columns that can be asked for with -o, by ps's names.
func psAll() []psColumn {
	return []psColumn{
		{"user uname euser", "USER", func(t *query.Task, _ time.Time) string { return t.User }},
		{"uid euid", "UID", func(t *query.Task, _ time.Time) string { return strconv.FormatUint(uint64(t.UID), 10) }},
		{"pid tgid", "PID", func(t *query.Task, _ time.Time) string { return strconv.Itoa(t.PID) }},
		{"ppid", "PPID", func(t *query.Task, _ time.Time) string { return strconv.Itoa(t.PPID) }},
		{"c", "C", func(t *query.Task, now time.Time) string { return strconv.Itoa(int(busy(t, now))) }},
		{"%cpu pcpu", "%CPU", func(t *query.Task, now time.Time) string { return fmt.Sprintf("%.1f", busy(t, now)) }},
		{"rss rssize rsz", "RSS", func(t *query.Task, _ time.Time) string { return strconv.FormatInt(t.RSS>>10, 10) }},
		{"stime start_time start", "STIME", func(t *query.Task, now time.Time) string { return startTime(t.Started, now) }},
		{"etime", "ELAPSED", func(t *query.Task, now time.Time) string { return elapsed(now.Sub(t.Started)) }},
		{"tty tt tname", "TTY", func(t *query.Task, _ time.Time) string { return t.TTY }},
		{"time cputime", "TIME", func(t *query.Task, _ time.Time) string { return clock(t.CPU) }},
		{"comm ucmd ucomm", "COMMAND", func(t *query.Task, _ time.Time) string { return t.Name }},
		{"cmd args command", "CMD", func(t *query.Task, _ time.Time) string { return commandLine(t) }},
	}
}

// psColumns reads the options of ps that are known here: those of Docker's
// users, -o with names, aux and -ef.
func psColumns(args []string) ([]psColumn, error) {
	var names []string
	const full = "user=UID,pid,ppid,c,stime,tty,time,cmd"
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case slices.Contains([]string{"-ef", "-f", "-e", "ef", "-A"}, arg):
			names = append(names, full)
		case slices.Contains([]string{"aux", "-aux", "u", "ux", "au"}, arg):
			names = append(names, "user,pid,%cpu,rss,tty,stime=START,time,cmd=COMMAND")
		case (arg == "-o" || arg == "o" || arg == "-eo" || arg == "--format") && i+1 < len(args):
			i++
			names = append(names, args[i])
		case strings.HasPrefix(arg, "-o") && len(arg) > 2:
			names = append(names, arg[2:])
		case strings.HasPrefix(arg, "--format="):
			names = append(names, strings.TrimPrefix(arg, "--format="))
		default:
			return nil, fmt.Errorf("the option %q of ps is not supported yet: use -ef, aux or -o COLUMN,…", arg)
		}
	}
	if names == nil {
		names = []string{full}
	}
	var columns []psColumn
	for _, list := range names {
		for _, name := range strings.Split(list, ",") {
			name, header, renamed := strings.Cut(name, "=")
			all := psAll()
			i := slices.IndexFunc(all, func(p psColumn) bool { return slices.Contains(strings.Fields(p.names), strings.ToLower(name)) })
			if i < 0 {
				return nil, fmt.Errorf("the column %q of ps is not supported yet", name)
			}
			if renamed {
				all[i].header = header
			}
			columns = append(columns, all[i])
		}
	}
	if !slices.ContainsFunc(columns, func(p psColumn) bool { return strings.HasPrefix(p.names, "pid") }) {
		return nil, errors.New("couldn't find PID field in ps output")
	}
	return columns, nil
}

// writeTop aligns as Docker does: columns of at least twenty characters.
func writeTop(w io.Writer, columns []psColumn, tasks []query.Task, now time.Time) error {
	tab := tabwriter.NewWriter(w, 20, 1, 3, ' ', 0)
	var line []string
	for _, p := range columns {
		line = append(line, p.header)
	}
	fmt.Fprintln(tab, strings.Join(line, "\t"))
	for i := range tasks {
		line = line[:0]
		for _, p := range columns {
			line = append(line, plain(p.show(&tasks[i], now)))
		}
		fmt.Fprintln(tab, strings.Join(line, "\t"))
	}
	return tab.Flush()
}

// busy is how many hundredths of its life a process has computed.
func busy(t *query.Task, now time.Time) float64 {
	life := now.Sub(t.Started)
	if life <= 0 {
		return 0
	}
	return 100 * float64(t.CPU) / float64(life)
}

func startTime(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	switch {
	case t.Year() != now.Year():
		return t.Format("2006")
	case t.YearDay() != now.YearDay():
		return t.Format("Jan02")
	}
	return t.Format("15:04")
}

// clock is a time of computing as ps shows it.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	days := ""
	if s >= 86400 {
		days, s = fmt.Sprintf("%d-", s/86400), s%86400
	}
	return fmt.Sprintf("%s%02d:%02d:%02d", days, s/3600, s/60%60, s%60)
}

func elapsed(d time.Duration) string {
	if d < time.Hour {
		return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
	}
	return clock(d)
}

// commandLine is what a process was called with; a kernel's word for it stands
// in brackets where there is nothing else.
func commandLine(t *query.Task) string {
	if len(t.Args) == 0 {
		return "[" + path.Base(t.Name) + "]"
	}
	return strings.Join(t.Args, " ")
}

// plain is a text that a container may have made up, without what would tear a
// table or steer a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
