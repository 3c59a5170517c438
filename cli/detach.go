package cli

import (
	"bytes"
	"fmt"
	"strings"
)

const defaultDetachKeys = "ctrl-p,ctrl-q"

// detachedError says that somebody has typed the keys that detach.
type detachedError struct{}

func (detachedError) Error() string { return "read escape sequence" }

// parseDetachKeys reads keys with commas between them: a character each, or
// ctrl- and a letter or one of @ [ \ ] ^ _. The empty text means the default.
func parseDetachKeys(text string) ([]byte, error) {
	if text == "" {
		text = defaultDetachKeys
	}
	const controls = "@abcdefghijklmnopqrstuvwxyz[\\]^_" // by their number
	var keys []byte
	for _, key := range strings.Split(text, ",") {
		if len(key) == 1 {
			keys = append(keys, key[0])
			continue
		}
		rest, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		n := strings.Index(controls, rest)
		if !ok || len(rest) != 1 || n < 0 {
			return nil, fmt.Errorf("detach keys %q: unknown key %q: want a character or ctrl- and one", text, key)
		}
		keys = append(keys, byte(n))
	}
	return keys, nil
}

// escape finds the keys that detach in what is typed. Those of them that may be
// the beginning are held back until the next key tells.
type escape struct {
	keys []byte
	held int // how many of keys were typed last
}

// filter gives what is to be passed on of p, and whether all keys were typed:
// what comes behind them is for nobody.
func (e *escape) filter(p []byte) (on []byte, detached bool) {
	if len(e.keys) == 0 {
		return p, false
	}
	if e.held == 0 && bytes.IndexByte(p, e.keys[0]) < 0 {
		return p, false
	}
	for _, b := range p {
		typed := append(bytes.Clone(e.keys[:e.held]), b)
		if bytes.Equal(typed, e.keys) {
			return on, true
		}
		// The longest end of what was typed that may still become the keys.
		for e.held = len(typed); !bytes.HasPrefix(e.keys, typed[len(typed)-e.held:]); {
			e.held--
		}
		on = append(on, typed[:len(typed)-e.held]...)
	}
	return on, false
}
