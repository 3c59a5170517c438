package plan

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// maxPSS is what a shim may cost in kB of proportional memory, the promise of
// the project's size table.
const maxPSS = 64

// TestMemoryOfIdleShims runs fifty shims from one sealed program and looks at
// the memory and the threads of each.
func TestMemoryOfIdleShims(t *testing.T) {
	const n = 50
	path, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	var all []*shim
	for range n {
		s := newShim(t, Monitor{}, 1<<20).host("/bin/sleep", "100")
		s.program = fmt.Sprintf("/proc/self/fd/%d", sealed.Fd())
		s.start().until(ReportRunning)
		all = append(all, s)
	}
	var sum, most int
	for _, s := range all {
		// It tells first and confines itself then.
		eventually(t, "a filter", func() bool { return status(t, s.pid, "status", "Seccomp:") == 2 })
		pss := status(t, s.pid, "smaps_rollup", "Pss:")
		sum += pss
		most = max(most, pss)
		if threads := status(t, s.pid, "status", "Threads:"); threads != 1 {
			t.Errorf("%d threads", threads)
		}
		if caps := field(t, s.pid, "status", "CapEff:"); caps != "0000000000000000" {
			t.Errorf("capabilities %s", caps)
		}
		if status(t, s.pid, "status", "Seccomp:") != 2 || status(t, s.pid, "status", "NoNewPrivs:") != 1 {
			t.Error("a shim without a filter of its own")
		}
	}
	t.Logf("%d idle shims: %.1f kB PSS each, %d at most", n, float64(sum)/n, most)
	if most > maxPSS {
		t.Errorf("%d kB PSS, at most %d are promised", most, maxPSS)
	}
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", all[0].pid))
	var names []string
	for _, fd := range fds {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", all[0].pid, fd.Name()))
		names = append(names, link)
	}
	// 0, 1, 2, control, lock, record, listener, log and its directory, two
	// pipes, pidfd.
	if len(names) != 12 {
		t.Errorf("descriptors of a shim: %v", names)
	}
}

func field(t *testing.T, pid int, file, key string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == key {
			return f[1]
		}
	}
	t.Fatalf("no %s in %s", key, file)
	return ""
}

func status(t *testing.T, pid int, file, key string) int {
	t.Helper()
	n, err := strconv.Atoi(field(t, pid, file, key))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
