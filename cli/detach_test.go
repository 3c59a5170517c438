package cli

import (
	"testing"
)

func TestParseDetachKeys(t *testing.T) {
	for text, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "a,b,c": "abc", "ctrl-@": "\x00", "CTRL-A": "\x01", "ctrl-z": "\x1a",
		"ctrl-[": "\x1b", "ctrl-\\,x": "\x1cx", "ctrl-_": "\x1f",
	} {
		if got, err := parseDetachKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"ab", "ctrl-", "ctrl-1", "a,,b", "ctrl-ab", "alt-a"} {
		if got, err := parseDetachKeys(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestEscape: what is typed passes as it is, however it comes in pieces, until the
// keys that detach.
func TestEscape(t *testing.T) {
	for _, test := range []struct {
		keys     string
		typed    []string
		want     string
		detached bool
	}{
		{"", []string{"anything"}, "anything", false},
		{"PQ", []string{"abc"}, "abc", false},
		{"PQ", []string{"aPQb"}, "a", true},
		{"PQ", []string{"aP", "Qb"}, "a", true},
		{"PQ", []string{"P"}, "", false},
		{"PQ", []string{"P", "x"}, "Px", false},
		{"PQ", []string{"PP", "Q"}, "P", true},
		{"PQ", []string{"PxQ"}, "PxQ", false},
		{"aab", []string{"aaab"}, "a", true},
		{"aab", []string{"aa", "c", "aab"}, "aac", true},
		{"abab", []string{"abaabab"}, "aba", true},
		{"P", []string{"xPy"}, "x", true},
	} {
		e := escape{keys: []byte(test.keys)}
		got, detached := "", false
		for _, typed := range test.typed {
			var on []byte
			if on, detached = e.filter([]byte(typed)); true {
				got += string(on)
			}
		}
		if got != test.want || detached != test.detached {
			t.Errorf("%q typed with %q: %q, %v; want %q, %v", test.typed, test.keys, got, detached, test.want, test.detached)
		}
	}
}
