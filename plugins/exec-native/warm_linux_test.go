package execnative

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// children lists this process's children that run the shim.
func children(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children") // a thread may have ended
		for _, word := range strings.Fields(string(text)) {
			var pid int
			fmt.Sscan(word, &pid)
			if comm, _ := os.ReadFile("/proc/" + word + "/comm"); bytes.Equal(comm, []byte("gantry-shim\n")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// TestWarmShims: some wait, the killed ones among them are replaced without
// anybody noticing, and none outlives its driver.
func TestWarmShims(t *testing.T) {
	others := children(t) // of drivers that other tests have left
	b := newBench(t)
	until := func(n int) []int {
		t.Helper()
		var got []int
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			got = slices.DeleteFunc(children(t), func(pid int) bool { return slices.Contains(others, pid) })
			if len(got) == n {
				return got
			}
		}
		t.Fatalf("shims %v wait, not %d", got, n)
		return nil
	}
	for _, pid := range until(warmShims) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, b, b.request("echo up"), "up")
	until(warmShims)
	if items, err := b.d.List(t.Context()); err != nil || len(items) != 1 {
		t.Errorf("%v, %v: want the one run", items, err)
	}
	b.d.coolDown()
	until(0)
	expect(t, b, b.request("echo cold"), "cold")
	until(0)
}
