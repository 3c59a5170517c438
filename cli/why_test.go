package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/gantryd/gantry/core"
)

// TestWhyKnowsAll: every event that can happen to a container has words of its own.
func TestWhyKnowsAll(t *testing.T) {
	catalogue, err := os.ReadFile("../core/testdata/catalogue.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(catalogue)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "event ")
		if !ok || !strings.HasPrefix(name, "container.") {
			continue
		}
		n++
		e := logged{Header: core.Header{Name: name}, fields: map[string]any{
			"exit": map[string]any{"code": 1.0}, "fault": map[string]any{"message": "it broke"},
		}}
		if words := e.why(nil); words == "" || strings.Contains(words, name) {
			t.Errorf("%s has no words: %q", name, words)
		}
	}
	if n < 40 {
		t.Errorf("the catalogue has %d events of containers", n)
	}
}

// TestWhyWords: with what matters in them.
func TestWhyWords(t *testing.T) {
	for want, line := range map[string]string{
		"its restart policy planned another run after a wait of 200ms, restart 2 in a row": `{"event":"container.restart-planned","count":2,"delay_ns":200000000}`,
		"another run was to follow": `{"event":"container.restart-planned","by_hand":true}`,
		`its health became unhealthy: its last probe ended with 3 and said "no answer"`: `{"event":"container.health-changed","status":"unhealthy","probes":[{"code":1},{"code":3,"output":"no answer\n"}]}`,
		"its health became unhealthy: its last probe took too long":                     `{"event":"container.health-changed","status":"unhealthy","probes":[{"timed_out":true}]}`,
		"its health became healthy":                                  `{"event":"container.health-changed","status":"healthy","probes":[{"code":0}]}`,
		"the kernel killed in it for want of memory, 3 times so far": `{"event":"container.oom-killed","kills":3,"new":1}`,
		"a further program was wanted in it: sh -c true":             `{"event":"container.exec-wanted","spec":{"args":["sh","-c","true"]}}`,
		"that program ended: code=137 signal=SIGKILL":                `{"event":"container.exec-exited","exit":{"code":137,"signal":9}}`,
		"its limits could not be changed: the kernel says no":        `{"event":"container.update-failed","fault":{"message":"the kernel says no"}}`,
		"its policy wants it started anew when it is unhealthy":      `{"event":"container.restart-wanted","unhealthy":true}`,
	} {
		e, err := readLogged([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if got := e.why(nil); got != want {
			t.Errorf("%s:\n got %q\nwant %q", line, got, want)
		}
	}
}
