package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// kept reports whether a file that says got holds what the write wanted.
func (w Write) kept(got string) bool {
	got = strings.TrimSpace(got)
	switch w.Rule {
	case sameList:
		a, ok1 := ParseList(got)
		b, ok2 := ParseList(w.Back)
		return ok1 && ok2 && slices.Equal(a, b)
	case sameLine:
		line, ok := lineOf(got, w.Key)
		return keptLine(line, w.Back, ok)
	case sameSet:
		a, b := strings.Split(got, "\n"), strings.Split(strings.TrimSpace(w.Back), "\n")
		slices.Sort(a)
		slices.Sort(b)
		return slices.Equal(a, b)
	case sameAny:
		return keptAny(got, w.Back, int64(os.Getpagesize()))
	}
	return got == w.Back
}

// lineOf finds the rest of the line that begins with the key. Version 1's
// blkio.throttle files, io.max, io.weight, rdma.max, net_prio.ifpriomap and
// memory.oom_control are such files.
func lineOf(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		first, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if first == key {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// keptLine reports whether a line has all the words wanted. The kernel leaves
// out lines of which every word is the default: 0 or max.
func keptLine(line, want string, there bool) bool {
	have := strings.Fields(line)
	for _, word := range strings.Fields(want) {
		isDefault := word == "0" || word == "default" || strings.HasSuffix(word, "=max")
		if !slices.Contains(have, word) && (there && word != "default" || !isDefault) {
			return false
		}
	}
	return true
}

// keptAny compares a file nothing is known of: the same words; or a number
// that the kernel keeps in whole pages; or one line of several.
func keptAny(got, want string, page int64) bool {
	if strings.Join(strings.Fields(got), " ") == strings.Join(strings.Fields(want), " ") {
		return true
	}
	g, ok1 := ParseBytes(got)
	w, ok2 := ParseBytes(want)
	if ok1 && ok2 {
		return g == w || g == w/page*page
	}
	if ok2 && got == "max" {
		return w >= mostBytes(page)
	}
	a, ok1 := ParseList(got)
	b, ok2 := ParseList(want)
	if ok1 && ok2 && got != "" {
		return slices.Equal(a, b)
	}
	words := strings.Fields(want)
	if len(words) == 0 {
		return got == ""
	}
	if len(words) == 1 { // io.weight takes "200" and shows "default 200"; cpu.max takes the quota alone
		line, ok := lineOf(got, "default")
		return ok && line == want || strings.HasPrefix(got, want+" ")
	}
	line, ok := lineOf(got, words[0])
	return ok && keptLine(line, strings.Join(words[1:], " "), true)
}

// ParseBytes reads a number with the unit that the kernel's memparse takes: k, m,
// g or t.
func ParseBytes(s string) (int64, bool) {
	shift := 0
	if n := len(s); n > 1 {
		switch s[n-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		case 't', 'T':
			shift = 40
		}
		if shift > 0 {
			s = s[:n-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n << shift, err == nil && n<<shift>>shift == n
}
