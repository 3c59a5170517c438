package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// kept is what is remembered of a machine: a report may be put together from
// several runs, each fact with the tree that it is of.
type kept struct {
	Name     string
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
		k := kept{Name: res.name, Facts: res.facts, Err: res.err, Took: res.took}
		for line := range bytes.Lines(res.stream) {
			k.Messages = append(k.Messages, line)
		}
		b, err := json.Marshal(k)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(keptDir(cache), strings.ReplaceAll(res.name, " ", "-")+".json"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addKept adds what machines said that were not booted in this run.
func (r *report) addKept(cache string) error {
	files, err := filepath.Glob(filepath.Join(keptDir(cache), "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var k kept
		if err := json.Unmarshal(b, &k); err != nil {
			return err
		}
		if slices.ContainsFunc(r.results, func(res *result) bool { return res.name == k.Name }) {
			continue
		}
		res := &result{name: k.Name, facts: map[string]string{}, quiet: true}
		for _, line := range k.Messages {
			var m wire.Message
			if err := json.Unmarshal(line, &m); err != nil {
				return err
			}
			res.take(m)
		}
		res.facts, res.err, res.took = k.Facts, k.Err, k.Took
		res.settleRest()
		r.results = append(r.results, res)
	}
	slices.SortStableFunc(r.results, func(a, b *result) int { return strings.Compare(a.name, b.name) })
	return nil
}
