package runtime

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// logHook is a hook that writes a word to a file, or fails.
func logHook(path, word string, fails bool) specs.Hook {
	end := ""
	if fails {
		end = "; exit 3"
	}
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("cat > /dev/null; echo %s >> %s%s", word, path, end)}, Env: []string{"PATH=/bin:/usr/bin"}}
}

// wordsOf are the words of a file, in one line.
func wordsOf(path string) string {
	text, _ := os.ReadFile(path)
	return strings.Join(strings.Fields(string(text)), " ")
}

// TestPoststartFails: from version 1.3 on it is the container's end, before it was
// a warning.
func TestPoststartFails(t *testing.T) {
	for version, want := range map[string]struct {
		code int
		ran  string
	}{"1.3.0": {exitFailed, "one end"}, "1.2.1": {0, "one two end"}, "1.0.2-dev": {0, "one two end"}} {
		t.Run(version, func(t *testing.T) {
			b := newBox(t, "sleep 0.3")
			b.spec.Version = version
			log := t.TempDir() + "/log"
			b.spec.Hooks = &specs.Hooks{
				Poststart: []specs.Hook{logHook(log, "one", true), logHook(log, "two", false)}, Poststop: []specs.Hook{logHook(log, "end", false)},
			}
			o := b.run()
			if o.code != want.code || !strings.Contains(o.err, "hook poststart[0] /bin/sh: exit status 3") || wordsOf(log) != want.ran {
				t.Errorf("%+v, hooks %q, want %d and %q", o, wordsOf(log), want.code, want.ran)
			}
			if o := b.do("state", b.id); o.code == 0 {
				t.Errorf("there is still a container: %+v", o)
			}
		})
	}
}

// TestHookEndsCreation: the life of a container whose hook fails goes on at its
// end, with the hooks after the stop.
func TestHookEndsCreation(t *testing.T) {
	for _, kind := range []string{"prestart", "createRuntime", "createContainer"} {
		t.Run(kind, func(t *testing.T) {
			b := newBox(t, "true")
			log := t.TempDir() + "/log"
			h := &specs.Hooks{Poststop: []specs.Hook{logHook(log, "first", true), logHook(log, "second", false)}}
			failing := []specs.Hook{{Path: "/bin/false"}}
			switch kind {
			case "prestart":
				//lint:ignore SA1019 a deprecated kind is run as long as specifications name it
				h.Prestart = failing
			case "createRuntime":
				h.CreateRuntime = failing
			default:
				h.CreateContainer = failing
			}
			b.spec.Hooks = h
			if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, kind) || wordsOf(log) != "first second" {
				t.Errorf("%+v, hooks %q", o, wordsOf(log))
			}
		})
	}
}

// TestUnknownCapability: an error to the specification's version 1.0, a warning
// to later ones.
func TestUnknownCapability(t *testing.T) {
	for version, code := range map[string]int{"1.0.2": exitFailed, "1.1.0": 0, "1.3.0": 0} {
		b := newBox(t, "true")
		b.spec.Version, b.spec.Process.Capabilities.Bounding = version, []string{"CAP_FLY"}
		if o := b.run(); o.code != code || !strings.Contains(o.err, "CAP_FLY") {
			t.Errorf("%s: %+v, want %d", version, o, code)
		}
	}
}

// TestNoProcess makes a container without a program: there is nothing to start,
// and everything else.
func TestNoProcess(t *testing.T) {
	subreaper(t)
	b := newBox(t, "")
	b.spec.Process = nil
	if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, "process is missing") {
		t.Errorf("run: %+v", o)
	}
	b.must("create", "--bundle", b.bundle, b.id)
	if o := b.do("start", b.id); o.code != exitFailed || !strings.Contains(o.err, "without a process") {
		t.Errorf("start: %+v", o)
	}
	if st := b.state(); st.Status != specs.StateCreated || st.PID == 0 {
		t.Errorf("after the start that failed: %+v", st)
	}
	if o := b.do("exec", b.id, "/bin/sh", "-c", "pwd; ls /bin/busybox; readlink /proc/1/exe || echo hidden"); o.code != 0 || !strings.HasPrefix(o.out, "/\n/bin/busybox\n") {
		t.Errorf("exec: %+v", o)
	}
	b.must("kill", b.id, "KILL")
	b.awaitStatus(specs.StateStopped)
	b.must("delete", b.id)
}
