package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// kept is what is remembered of a run of a machine: a report may be put together
// from several runs, each with the tree that it is of.
type kept struct {
	Name     string
	Begun    time.Time
	Facts    map[string]string
	Err      string
	Took     time.Duration
	Messages []json.RawMessage
}

func keptDir(cache string) string { return filepath.Join(cache, "results") }

// keep remembers the results of this run.
func (r *report) keep(cache string) error {
	if err := os.MkdirAll(keptDir(cache), 0o755); err != nil {
		return err
	}
	for _, res := range r.results {
		k := kept{Name: res.name, Begun: r.begun, Facts: res.facts, Err: res.err, Took: res.took}
		for line := range bytes.Lines(res.stream) {
			k.Messages = append(k.Messages, line)
		}
		b, err := json.Marshal(k)
		if err != nil {
			return err
		}
		name := strings.ReplaceAll(res.name, " ", "-") + "@" + r.begun.UTC().Format("20060102T150405") + ".json"
		if err := os.WriteFile(filepath.Join(keptDir(cache), name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addKept puts the report together from all runs that are remembered, this one
// among them. A run that has nothing to say any more is forgotten.
func (r *report) addKept(cache string) error {
	files, err := filepath.Glob(filepath.Join(keptDir(cache), "*.json"))
	if err != nil {
		return err
	}
	type run struct {
		file string
		kept
	}
	var runs []run
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		k := run{file: file}
		if err := json.Unmarshal(b, &k.kept); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		runs = append(runs, k)
	}
	slices.SortStableFunc(runs, func(a, b run) int { return b.Begun.Compare(a.Begun) }) // the newest first
	r.results = nil
	for _, k := range runs {
		res, err := k.result()
		if err != nil {
			return fmt.Errorf("%s: %w", k.file, err)
		}
		i := slices.IndexFunc(r.results, func(have *result) bool { return have.name == res.name })
		switch {
		case i < 0:
			r.results = append(r.results, res)
		case !r.results[i].addOlder(res):
			if err := os.Remove(k.file); err != nil {
				return err
			}
		}
	}
	slices.SortStableFunc(r.results, func(a, b *result) int { return strings.Compare(a.name, b.name) })
	return nil
}

// result is what the run said, read anew.
func (k kept) result() (*result, error) {
	res := &result{name: k.Name, facts: map[string]string{}, quiet: true}
	for _, line := range k.Messages {
		var m wire.Message
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, err
		}
		res.take(m)
	}
	if len(k.Facts) > 0 {
		res.facts = k.Facts
	}
	res.err, res.took = k.Err, k.Took
	res.settleRest()
	for i := range res.outcomes {
		res.outcomes[i].picked = res.facts["tests"] != ""
	}
	return res, nil
}

// addOlder adds what an older run of the same machine said and this one did
// not: tests that did not come to an end here, with all below them, and why.
// It returns whether that was anything.
func (r *result) addOlder(old *result) bool {
	newer, whole := map[string]string{}, map[string]string{}
	for _, o := range r.outcomes {
		if newer[o.name()] = o.action; !o.picked {
			whole[o.name()] = o.action
		}
	}
	of := map[string]int{} // packages, with how many tests each adds
	for _, o := range old.outcomes {
		action, have := newer[o.name()]
		top := whole[o.top()]
		switch {
		case have && (action != "cut" || o.action == "cut"), top != "" && top != "cut":
			continue // a part that an ended test has no more is gone
		case o.test == ofProgram && r.ran(o.pkg):
			continue
		case have:
			r.outcomes = slices.DeleteFunc(r.outcomes, func(n outcome) bool { return n.name() == o.name() })
		}
		r.outcomes = append(r.outcomes, o)
		of[o.pkg]++
	}
	if len(of) == 0 {
		return false
	}
	for _, p := range old.programs {
		if of[p.path] > 0 && !r.ran(p.path) {
			r.programs = append(r.programs, p)
		}
	}
	var words []string
	for _, p := range old.programs {
		if n := of[p.path]; n > 0 {
			words = append(words, fmt.Sprintf("%d of %s", n, p.path))
			of[p.path] = 0
		}
	}
	r.facts["tree"] += fmt.Sprintf(", and of an older run, tree %s: %s", old.facts["tree"], strings.Join(words, ", "))
	r.took += old.took
	return true
}

// ran reports whether a package's program was begun.
func (r *result) ran(pkg string) bool {
	return slices.ContainsFunc(r.programs, func(p *program) bool { return p.path == pkg })
}
