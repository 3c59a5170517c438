package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCatalogue prints every name with its fields: a changed schema is a line
// in a review.
func TestCatalogue(t *testing.T) {
	var b strings.Builder
	section(&b, "command", commands)
	section(&b, "event", events)
	section(&b, "step", steps)
	golden(t, "testdata/catalogue.txt", b.String())
}

func section[T any](b *strings.Builder, kind string, all map[string]func() T) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(b, "%s %s\n", kind, name)
		fields(b, reflect.TypeOf(all[name]()).Elem(), "  ")
	}
}

func fields(b *strings.Builder, t reflect.Type, indent string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			if f.Type != reflect.TypeFor[Header]() {
				fields(b, f.Type, indent)
			}
			continue
		}
		fmt.Fprintf(b, "%s%s %s\n", indent, tag, f.Type)
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update and read the diff):\n%s", file, firstDifference(string(want), got))
	}
}

// release is the release whose samples -update records.
const release = "0.2"

// TestSamples decodes one recorded sample of each event of each release, and
// finds every field of it again.
func TestSamples(t *testing.T) {
	if *update {
		recordSamples(t)
	}
	files, err := filepath.Glob("testdata/samples-*.jsonl")
	if err != nil || len(files) < 2 {
		t.Fatalf("samples of %q: %v", files, err)
	}
	var seen map[string]bool
	for _, file := range files {
		seen = samples(t, file)
	}
	for name := range events { // the last file is this release's
		if !seen[name] {
			t.Errorf("there is no sample of %s: record one with -update", name)
		}
	}
}

func samples(t *testing.T, file string) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		e, err := DecodeEvent(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		again, err := EncodeEvent(e)
		if err != nil {
			t.Fatal(err)
		}
		var was, is map[string]any
		if json.Unmarshal(line, &was) != nil || json.Unmarshal(again, &is) != nil || !reflect.DeepEqual(was, is) {
			t.Errorf("sample\n%s\nis now\n%s", line, again)
		}
		seen[e.name()] = true
	}
	return seen
}

// recordSamples takes the first of each event out of the stories and of random
// histories.
func recordSamples(t *testing.T) {
	samples := map[string][]byte{}
	keep := func(e Event) {
		if samples[e.name()] == nil {
			samples[e.name()], _ = EncodeEvent(e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(stories(t))) {
		for _, e := range stories(t)[name].log {
			keep(e)
		}
	}
	for seed := int64(1); seed <= 400 && len(samples) < len(events); seed++ {
		for _, e := range history(t, rand.New(rand.NewSource(seed))).log {
			keep(e)
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(samples)) {
		fmt.Fprintf(&b, "%s\n", samples[name])
	}
	if err := os.WriteFile("testdata/samples-"+release+".jsonl", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSchema folds a recorded log: its state's hash changes only together with
// SchemaVersion, since snapshots are valid by that number.
func TestSchema(t *testing.T) {
	const file = "testdata/golden-log.jsonl"
	if *update {
		var b strings.Builder
		for _, e := range history(t, rand.New(rand.NewSource(7))).log {
			line, _ := EncodeEvent(e)
			fmt.Fprintf(&b, "%s\n", line)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := foldFile(t, file)
	golden(t, "testdata/golden-state.txt", fmt.Sprintf("schema %d events %d hash %s\n", SchemaVersion, s.Seq, s.Hash()))
}

func foldFile(t *testing.T, file string) *State {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := NewState()
	for line := range bytes.Lines(data) {
		e, err := DecodeEvent(bytes.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		s.Apply(e)
	}
	return s
}

// TestOldLog folds a log that the first release wrote, to the state that it had
// there, and goes on from it.
func TestOldLog(t *testing.T) {
	s := foldFile(t, "testdata/log-0.1.jsonl")
	const hash = "5e991caa3c261e5a17329b30d706f2716a74c0400d598e8460336e8b07a47eec"
	if s.Seq != 252 || s.Hash() != hash {
		t.Fatalf("events %d hash %s", s.Seq, s.Hash())
	}
	e := newEngine(t)
	e.s = s
	maps.Copy(e.held, heldBy(s))
	e.clock, e.jobs = e.clock.Add(time.Hour), 10_000
	if _, err := e.send(startEngine("boot-later")); err != nil {
		t.Fatal(err)
	}
	e.settle()
	e.atRest()
}

// TestStepBehind: every step that can end well has an event that tells it.
func TestStepBehind(t *testing.T) {
	told := map[string]bool{}
	for name := range events {
		told[StepBehind(name)] = true
	}
	for name := range steps {
		if !told[name] {
			t.Errorf("no event tells that step %s has ended well", name)
		}
	}
}
