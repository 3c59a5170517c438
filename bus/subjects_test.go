package bus

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus/internal/wire"
)

func TestSubjectsThereAndBack(t *testing.T) {
	s := Subjects{Node: "n.1"}
	for _, name := range []string{"container.create", "container.pause-wanted", "a.b.c", "x", "with space.*", "ü.>", "%41.%"} {
		subject := s.Command("7", name)
		if strings.ContainsAny(subject, " *>") || !strings.HasPrefix(subject, "gantry.n%2E1.cmd.7.") {
			t.Errorf("%q is %q", name, subject)
		}
		if conn, got, ok := s.ParseCommand(subject); !ok || conn != "7" || got != name {
			t.Errorf("%q came back as %q of %q, %v", name, got, conn, ok)
		}
		if _, _, ok := s.ParseQuery(subject); ok {
			t.Errorf("command %q is taken for a query", name)
		}
		if _, _, ok := (Subjects{Node: "n"}).ParseCommand(subject); ok {
			t.Error("another node's command is taken")
		}
	}
	for _, id := range []string{"abc", "", "net/bridge", "sha256:00", "a.b*c>d e", "docker.io/library/x:1.2"} {
		subject := s.Event("image", id, "image.tagged")
		if !matches(s.Events("image", ""), subject) || id != "" && !matches(s.Events("image", id), subject) || matches(s.Events("network", ""), subject) {
			t.Errorf("%q is %q", id, subject)
		}
		if noun, got := s.parseEvent(subject); noun != "image" || got != id {
			t.Errorf("%q came back as %q of %q", id, got, noun)
		}
	}
	if n := len(s.Event("x", strings.Repeat("é", 5000), "x.y")); n > 2000 {
		t.Errorf("a subject of %d bytes", n)
	}
	if kind, driver, ok := s.ParseFinish(s.Finish("net", "bridge.x")); !ok || kind != "net" || driver != "bridge.x" {
		t.Errorf("finish of %q %q, %v", kind, driver, ok)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.*", "a.b", true}, {"a.*", "a.b.c", false}, {"a.*", "a", false},
		{"a.>", "a.b.c", true}, {"a.>", "a", false}, {"a.*.>", "a.b", false}, {"a.*.>", "a.b.c", true}, {"a.b", "a.b.c", false},
	} {
		if got := matches(c.pattern, c.subject); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.subject, got)
		}
	}
}

// TestGenuine: what JetStream sends for somebody has another subject, or a
// reply of its own.
func TestGenuine(t *testing.T) {
	const pattern = "gantry.n.cmd.*.>"
	for _, c := range []struct {
		m    wire.Msg
		want bool
	}{
		{wire.Msg{Subject: "gantry.n.cmd.1.container.remove", Reply: "_INBOX.1.x"}, true},
		{wire.Msg{Subject: "gantry.n.event.container.x.created", Reply: "_INBOX.1.x"}, false},
		{wire.Msg{Subject: "gantry.n.cmd.1.container.remove", Reply: "$JS.ACK.s.c.1.1.1.1.0"}, false},
	} {
		if got := genuine(pattern, &c.m); got != c.want {
			t.Errorf("genuine(%+v) = %v", c.m, got)
		}
	}
}

func TestInboxOwner(t *testing.T) {
	for reply, want := range map[string]string{"_INBOX.7.abc.def": "7", "_INBOX.7.": "", "_INBOX.7": "", "gantry.n.cmd.7.x": "", "": ""} {
		if got, ok := InboxOwner(reply); ok != (want != "") || ok && got != want {
			t.Errorf("InboxOwner(%q) = %q, %v", reply, got, ok)
		}
	}
}

func TestRightsOfRoles(t *testing.T) {
	s := Subjects{Node: "n"}
	may := func(patterns []string, subject string) bool {
		for _, p := range patterns {
			if matches(p, subject) {
				return true
			}
		}
		return false
	}
	for _, c := range []struct {
		role    Role
		publish string
		want    bool
	}{
		{RoleControl, s.Command("7", "container.create"), true}, {RoleControl, s.Command("8", "container.create"), false},
		{RoleControl, s.Query("7", "container.list"), true}, {RoleControl, s.Finish("net", "bridge"), false},
		{RoleControl, s.Event("container", "c", "container.created"), false}, {RoleControl, s.Progress("j"), false},
		{RoleRead, s.Query("7", "container.list"), true}, {RoleRead, s.Command("7", "container.create"), false},
		{RoleHost, s.Finish("net", "bridge"), true}, {RoleHost, s.Command("7", "container.create"), false},
		{RoleHost, s.Event("container", "c", "container.created"), false}, {"", s.Query("7", "x.y"), false},
	} {
		publish, _ := s.Rights(c.role, "7")
		if publish == nil || may(publish, c.publish) != c.want {
			t.Errorf("%s may publish on %s: want %v; %v", c.role, c.publish, c.want, publish)
		}
	}
	_, listen := s.Rights(RoleControl, "7")
	for subject, want := range map[string]bool{"_INBOX.7.x": true, "_INBOX.8.x": false, s.Command("8", "a.b"): false, s.Step("net", "x"): false, s.Event("a", "b", "c.d"): true} {
		if may(listen, subject) != want {
			t.Errorf("control may listen on %s: want %v", subject, want)
		}
	}
}

func TestFrameThroughHeaders(t *testing.T) {
	f := Frame{Batch: 4, First: 5, Count: 2, Time: time.Unix(0, -7).UTC(), Schema: 9, Flags: 3, Prev: [32]byte{1, 255},
		Payload: []byte(`{"event":"container.created","noun":"container","id":"c"}` + "\n" + `{"event":"job.ended","noun":"job","id":"j"}` + "\n")}
	messages, err := Subjects{Node: "n"}.Messages(f)
	if err != nil || len(messages) != 2 || messages[1].Subject != "gantry.n.event.job.j" {
		t.Fatalf("%+v, %v", messages, err)
	}
	got, seq, err := ParseFrame(messages[1].Header.Get)
	got.Payload = f.Payload
	if err != nil || seq != 6 || got.Prev != f.Prev || !got.Time.Equal(f.Time) || got.Batch != 4 || got.First != 5 || got.Count != 2 || got.Schema != 9 || got.Flags != 3 {
		t.Errorf("%+v, %d, %v", got, seq, err)
	}
	for _, f := range messages[0].Header {
		if f.Name == HeaderEvent {
			continue
		}
		_, _, err := ParseFrame(func(name string) string {
			if name == f.Name {
				return "x" + f.Value
			}
			return messages[0].Header.Get(name)
		})
		if !errdefs.IsDataLoss(err) {
			t.Errorf("a bad %s: %v", f.Name, err)
		}
	}
	f.Count = 3
	if _, err := f.Events(); err == nil {
		t.Error("2 lines pass for 3 events")
	}
}

func TestErrorsTravel(t *testing.T) {
	b, err := json.Marshal(Answer{Error: NewError(errdefs.ErrDataLoss.WithMessage("gone"))})
	if err != nil {
		t.Fatal(err)
	}
	var a Answer
	if err := json.Unmarshal(b, &a); err != nil || !errdefs.IsDataLoss(a.Error.Err()) || a.Error.Err().Error() != "gone" {
		t.Errorf("%s came back as %v", b, a.Error.Err())
	}
	if NewError(nil) != nil || (*Error)(nil).Err() != nil {
		t.Error("nil is an error")
	}
}

func TestSecondsTravel(t *testing.T) {
	b, err := json.Marshal(Step{Deadline: Seconds(1500 * time.Millisecond)})
	if err != nil || !strings.Contains(string(b), `"deadline_seconds":1.5`) {
		t.Errorf("%s, %v", b, err)
	}
	var s Step
	if err := json.Unmarshal(b, &s); err != nil || time.Duration(s.Deadline) != 1500*time.Millisecond {
		t.Errorf("%v, %v", s.Deadline, err)
	}
}
