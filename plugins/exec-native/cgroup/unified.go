package cgroup

import (
	"maps"
	"slices"
	"strings"
)

// unified plans files of version 2 by name. A value of several lines is
// written line by line.
func (l *limits) unified(files map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		field := "unified " + file
		controller, _, dotted := strings.Cut(file, ".")
		switch {
		case !dotted || controller == "" || strings.ContainsAny(file, "/\x00\n"):
			l.invalid(field, "want a file's name like memory.high")
			return
		case controller == "cgroup" && !strings.HasPrefix(file, "cgroup.max.") && file != "cgroup.pressure":
			l.invalid(field, "it moves, ends or stops processes and is no limit")
			return
		case controller != "cgroup" && l.version(controller) == 1:
			l.lack(field, "the controller "+controller+" belongs to cgroup version 1 here")
			return
		case l.on(field, "", controller) != 2:
			return
		}
		for line := range strings.SplitSeq(strings.TrimSpace(files[file]), "\n") {
			line = strings.TrimSpace(line)
			w := Write{Field: field, Controller: controller, Unified: true, File: file, Value: line, Back: line, Rule: sameAny}
			if key, rest, ok := strings.Cut(line, " "); ok && strings.ContainsAny(key, ":") {
				w.Key, w.Back, w.Rule, w.Reset = key, rest, sameLine, resetLine(key, rest)
			}
			l.add(w)
		}
	}
}

// resetLine undoes a line of a device: every word back to its default.
func resetLine(key, rest string) string {
	out := key
	for _, word := range strings.Fields(rest) {
		if name, _, ok := strings.Cut(word, "="); ok {
			out += " " + name + "=max"
		} else {
			out += " default"
		}
	}
	return out
}
