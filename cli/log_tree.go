package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// logTree shows events under what caused them: command, job, events, with the
// time since the beginning and since the cause.
func (a *app) logTree(ctx context.Context, in query.LogIn) error {
	job := in.Job
	if job != "" { // what it led to may be about other nouns, and have no job
		in.Job = ""
	}
	t := newTree()
	if _, err := a.readLog(ctx, in, t.add); err != nil {
		return err
	}
	if err := t.adopt(ctx, a); err != nil {
		return err
	}
	out := bufio.NewWriter(a.Stdout)
	for _, root := range t.roots() {
		if job == "" || root.ID == job {
			t.print(out, root)
		}
	}
	return out.Flush()
}

// tree is events by what caused them.
type tree struct {
	events   map[uint64]*logged
	order    []*logged
	children map[uint64][]*logged
}

func newTree() *tree {
	return &tree{events: make(map[uint64]*logged), children: make(map[uint64][]*logged)}
}

func (t *tree) add(line json.RawMessage) error {
	e, err := readLogged(line)
	if err != nil {
		return err
	}
	if t.events[e.Seq] == nil {
		t.events[e.Seq] = &e
		t.order = append(t.order, &e)
	}
	return nil
}

// adopt reads the causes that the filter has left out, and says who is whose
// child.
func (t *tree) adopt(ctx context.Context, a *app) error {
	for i := 0; i < len(t.order); i++ { // grows on the way
		e := t.order[i]
		if e.Cause == 0 {
			continue
		}
		if t.events[e.Cause] == nil {
			if _, err := a.readLog(ctx, query.LogIn{From: e.Cause, To: e.Cause}, t.add); err != nil {
				return err
			}
		}
		t.children[e.Cause] = append(t.children[e.Cause], e)
	}
	return nil
}

// roots are the events without a cause, or whose cause is not to be had, in order.
func (t *tree) roots() []*logged {
	var roots []*logged
	for _, e := range t.order {
		if e.Cause == 0 || t.events[e.Cause] == nil {
			roots = append(roots, e)
		}
	}
	sortBySeq(roots)
	return roots
}

func (t *tree) print(w io.Writer, root *logged) {
	fmt.Fprintf(w, "%s  %6d  %s\n", root.Time.Local().Format("2006-01-02 15:04:05.000"), root.Seq, root.sentence())
	t.printChildren(w, root, root, "")
}

// printChildren goes down with the lines that lead to the children in front.
func (t *tree) printChildren(w io.Writer, root, parent *logged, lead string) {
	children := t.children[parent.Seq]
	sortBySeq(children)
	for i, e := range children {
		branch, below := "├─ ", "│  "
		if i == len(children)-1 {
			branch, below = "└─ ", "   "
		}
		since := ""
		if step := core.StepBehind(e.Name); step != "" {
			since = "  [step " + step + ", " + took(e.Time.Sub(parent.Time)) + "]"
		}
		fmt.Fprintf(w, "%23s  %6d  %s%s%s%s\n", "+"+took(e.Time.Sub(root.Time)), e.Seq, lead, branch, e.sentence(), since)
		t.printChildren(w, root, e, lead+below)
	}
}

// sentence is an event in a tree: a job's beginning is its command.
func (e *logged) sentence() string {
	if e.Name == "job.accepted" {
		return e.accepted() + "  [job " + shortJob(core.JobID(e.ID)) + "]"
	}
	what := e.Name
	if e.Noun == core.KindJob {
		return strings.TrimSpace(what + " " + e.matter())
	}
	return strings.TrimSpace(what + " " + nounID(e.Noun, e.ID) + " " + e.matter())
}

// nounID is the id of an event's noun, whose kind its name tells.
func nounID(kind, id string) string {
	_, rest, _ := strings.Cut(nounOf(kind, id), " ")
	return rest
}

func sortBySeq(events []*logged) {
	// Few, and nearly in order already.
	for i := 1; i < len(events); i++ {
		for k := i; k > 0 && events[k-1].Seq > events[k].Seq; k-- {
			events[k-1], events[k] = events[k], events[k-1]
		}
	}
}
