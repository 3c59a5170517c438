package linux

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestTimers: all threads are calm, what they make too, and what is to have the
// usual timers has them.
func TestTimers(t *testing.T) {
	if err := CalmTimers(); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if err != nil && !os.IsNotExist(err) || err == nil && strings.TrimSpace(string(text)) != "500000" {
			t.Errorf("thread %s: %q, %v", task.Name(), text, err)
		}
	}
	child := func() (string, error) {
		out, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
		return strings.TrimSpace(string(out)), err
	}
	if got, err := child(); err != nil || got != "500000" {
		t.Errorf("a process made since: %q, %v", got, err)
	}
	err = UsualTimers(func() error {
		got, err := child()
		if got != "50000" {
			t.Errorf("with the usual timers: %q", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got, err := child(); err != nil || got != "500000" {
		t.Errorf("and afterwards: %q, %v", got, err)
	}
}
