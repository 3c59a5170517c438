package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// report is what came of all machines.
type report struct {
	begun   time.Time
	missing []string // kernels that were not reached
	stage   *staged
	results []*result
}

// finish prints the report, writes it where it is wanted, and counts failures.
func (r *report) finish(o options) (int, error) {
	failed := len(r.stage.unbuilt)
	for _, res := range r.results {
		failed += res.count("fail") + res.count("cut")
		if res.err != "" {
			failed++
		}
	}
	text := r.markdown()
	if o.report == "" {
		fmt.Print("\n", text)
		return failed, nil
	}
	return failed, os.WriteFile(o.report, []byte(text), 0o644)
}

// markdown is the whole report.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Kernel tests on other kernels\n\nWritten by `make test-vm` on %s; the last run took %v. Of each test its newest run counts; of which tree that was, its machine's line tells.\n",
		r.begun.UTC().Format("2006-01-02 15:04 UTC"), time.Since(r.begun).Round(time.Second))
	b.WriteString("Each line of the table is a machine of its own, booted by qemu with a kernel of Debian; \"this machine\" is the one that booted them. " +
		"Where qemu translates, the tests run one at a time and with smaller numbers (`-test.short`); " +
		"what failed was tried once more, and what passed only then is told. " +
		"What a machine leaves to others is under \"Machines\".\n\n")
	b.WriteString("| machine | passed | of them the second time | failed | cut off | skipped | took |\n|---|---|---|---|---|---|---|\n")
	for _, res := range r.results {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %v |\n", res.name, res.count("pass")+res.count("second"), res.count("second"), res.count("fail"), res.count("cut"), res.count("skip"), res.took.Round(time.Second))
	}
	var names []string
	for _, p := range r.stage.manifest.Packages {
		names = append(names, p.Path)
	}
	fmt.Fprintf(&b, "\nPackages of this run: %s.\n", strings.Join(names, ", "))
	for _, m := range r.missing {
		first, _, _ := strings.Cut(m, "\n")
		fmt.Fprintf(&b, "\nNot reached: %s.\n", first)
	}
	r.machines(&b)
	r.broken(&b)
	r.list(&b, "Failed", "fail", "No test failed.")
	r.list(&b, "Passed the second time only", "second", "Nothing that passed had to be tried again.")
	r.list(&b, "Cut off", "cut", "Every test that began came to its end.")
	r.list(&b, "Skipped", "skip", "No test was skipped.")
	r.elsewhere(&b)
	r.nowhere(&b)
	r.left(&b)
	return b.String()
}

func (r *report) machines(b *strings.Builder) {
	b.WriteString("\n## Machines\n\n")
	for _, res := range r.results {
		var words []string
		for _, name := range slices.Sorted(maps.Keys(res.facts)) {
			words = append(words, fmt.Sprintf("%s: %s", name, res.facts[name]))
		}
		fmt.Fprintf(b, "- **%s** – %s\n", res.name, strings.Join(words, "; "))
	}
}

// broken are packages and machines that did not get as far as their tests.
func (r *report) broken(b *strings.Builder) {
	if len(r.stage.unbuilt) > 0 {
		b.WriteString("\n## Not compiled\n\n")
		for _, name := range slices.Sorted(maps.Keys(r.stage.unbuilt)) {
			fmt.Fprintf(b, "- %s\n", name)
		}
	}
	for _, res := range r.results {
		if res.err != "" {
			fmt.Fprintf(b, "\n## %s did not end well\n\n```\n%s\n```\n", res.name, strings.TrimSpace(r.clean(res.err)))
		}
	}
}

// list names the tests that ended so, why, and where.
func (r *report) list(b *strings.Builder, title, action, none string) {
	where := map[string][]string{}
	why := map[string]string{}
	because := complaint
	if action == "skip" {
		because = reason
	}
	for _, res := range r.results {
		for _, o := range res.outcomes {
			if o.action != action || action != "skip" && isParent(res.outcomes, o) {
				continue
			}
			where[o.name()] = append(where[o.name()], res.name)
			why[o.name()] = because(o.said)
		}
	}
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if len(where) == 0 {
		fmt.Fprintln(b, none)
	}
	for _, name := range slices.Sorted(maps.Keys(where)) {
		fmt.Fprintf(b, "- `%s` (%s): %s\n", name, r.places(where[name]), r.clean(why[name]))
	}
}

// isParent says whether a test failed only because one below it did.
func isParent(all []outcome, o outcome) bool {
	return slices.ContainsFunc(all, func(c outcome) bool {
		return c.pkg == o.pkg && c.action == o.action && strings.HasPrefix(c.test, o.test+"/")
	})
}

// places are machines in few words.
func (r *report) places(names []string) string {
	if len(names) == len(r.results) && len(names) > 1 {
		return "everywhere"
	}
	return strings.Join(names, "; ")
}

// clean keeps a line of a test within the report: no control characters, no
// paths of this machine, not endless.
func (r *report) clean(s string) string {
	const most = 300
	if r.stage.root != "" {
		s = strings.ReplaceAll(s, r.stage.root+"/", "")
	}
	s = strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' {
			return -1
		}
		return c
	}, s)
	if len(s) > most && !strings.Contains(s, "\n") {
		s = s[:most] + "…"
	}
	return s
}

// elsewhere says of each test that is skipped on this machine where it did run.
func (r *report) elsewhere(b *strings.Builder) {
	ran, skipped := map[string][]string{}, map[string]bool{}
	for _, res := range r.results {
		for _, o := range res.outcomes {
			switch {
			case o.action == "skip" && res.name == hereName:
				skipped[o.name()] = true
			case o.action == "pass" || o.action == "second":
				ran[o.name()] = append(ran[o.name()], res.name)
			}
		}
	}
	if len(skipped) == 0 {
		return
	}
	b.WriteString("\n## Skipped on this machine, and where it passed\n\n")
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		where := "nowhere"
		if len(ran[name]) > 0 {
			where = r.places(ran[name])
		}
		fmt.Fprintf(b, "- `%s`: %s\n", name, where)
	}
}

// nowhere names the tests that ran on no machine: done means run somewhere.
func (r *report) nowhere(b *strings.Builder) {
	ran := map[string]bool{}
	met := map[string]bool{}
	why := map[string]string{}
	for _, res := range r.results {
		for _, o := range res.outcomes {
			met[o.name()] = true
			if o.action == "skip" || why[o.name()] == "" {
				why[o.name()] = reason(o.said)
			}
			if o.action != "skip" && o.action != "cut" {
				ran[o.name()] = true
			}
		}
	}
	for pkg, tests := range r.stage.tests {
		for _, t := range tests {
			met[pkg+" "+t] = true
		}
	}
	b.WriteString("\n## Ran nowhere\n\n")
	var none []string
	for _, name := range slices.Sorted(maps.Keys(met)) {
		if !ran[name] {
			none = append(none, name)
		}
	}
	if len(none) == 0 {
		b.WriteString("Every test of these packages ran somewhere.\n")
	}
	for _, name := range none {
		fmt.Fprintf(b, "- `%s`: %s\n", name, cmp.Or(r.clean(why[name]), "begun on no machine"))
	}
	for _, name := range slices.Sorted(maps.Keys(r.stage.leftOut)) {
		fmt.Fprintf(b, "\nLeft out: %s, which %s.\n", name, r.stage.leftOut[name])
	}
}

// left names what packages left on their machines.
func (r *report) left(b *strings.Builder) {
	where := map[string][]string{}
	for _, res := range r.results {
		for _, p := range res.programs {
			for _, what := range p.left {
				key := p.path + ": " + what
				where[key] = append(where[key], res.name)
			}
		}
	}
	b.WriteString("\n## Left behind\n\n")
	if len(where) == 0 {
		b.WriteString("No mount, link, cgroup or process was there after the tests of a package that was not there before.\n")
	}
	for _, what := range slices.Sorted(maps.Keys(where)) {
		fmt.Fprintf(b, "- `%s` (%s)\n", r.clean(what), r.places(where[what]))
	}
}
