package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/internal/wire"
)

// spyOn gives a function that listens on a subject of an account, with all rights.
func spyOn(t *testing.T, s *Server, a account) func(subject string, heard chan<- string) {
	t.Helper()
	conn := rawConn(t, s, bus.RoleEngine, a)
	return func(subject string, heard chan<- string) {
		_, err := conn.Subscribe(subject, func(m *wire.Msg) { heard <- m.Subject + " " + string(m.Data) })
		if err == nil {
			err = conn.Flush(within(t))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func rawConn(t *testing.T, s *Server, role bus.Role, a account) *wire.Conn {
	t.Helper()
	nc, err := s.splicer.dial(peer{role: role, account: a})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.New(within(t), nc, "raw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestReplyForgery: a reader asks a permitted query with a forbidden subject as
// its reply. Without the guard the engine writes there in the reader's stead.
func TestReplyForgery(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		cfg := testConfig(t)
		cfg.Log, cfg.unguarded = nil, !guarded
		s := startWith(t, cfg, echo())
		victim := dial(t, s.ControlSocket())
		targets := []string{
			s.subjects.Command(victim.ID(), "container.remove"),
			s.subjects.Event("container", "c1", "container.removed"),
			s.subjects.Finish("net", "bridge"),
			bus.InboxPrefix(victim.ID()) + "x",
		}
		heard := make(chan string, 16)
		spy := spyOn(t, s, accountEngine)
		for _, target := range targets[:3] {
			spy(target, heard)
		}
		reader := rawConn(t, s, bus.RoleRead, accountEngine)
		own := jsonNumber(reader.Info().ClientID)
		for _, target := range targets {
			if err := reader.Publish(s.subjects.Query(own, "container.list"), target, nil, []byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
		// The last one is genuine: when its answer is there, the others were dealt with.
		if _, err := reader.Request(within(t), s.subjects.Query(own, "container.list"), nil, nil); err != nil {
			t.Fatal(err)
		}
		if guarded {
			time.Sleep(50 * time.Millisecond) // queries run side by side
		} else {
			eventually(t, "without the guard the forgeries do not arrive: the test proves nothing", func() bool { return len(heard) == 3 })
		}
		if n := len(heard); guarded && n != 0 {
			t.Errorf("forged with the guard: %s", <-heard)
		}
	}
}

func jsonNumber(n uint64) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// TestOnlyUnderItsOwnConnection: a client cannot send in another one's name.
func TestOnlyUnderItsOwnConnection(t *testing.T) {
	calls := make(chan Call, 16)
	s := startWith(t, testConfig(t), Handlers{
		Command: func(c Call, cmd bus.Command, reply Reply) { calls <- c; reply(bus.Receipt{}, nil) },
		Finish:  func(c Call, f bus.Finish, reply Reply) { calls <- c; reply(bus.Receipt{}, nil) },
	})
	victim := dial(t, s.ControlSocket())
	thief := rawConn(t, s, bus.RoleControl, accountEngine)
	for _, subject := range []string{
		s.subjects.Command(victim.ID(), "container.remove"), s.subjects.Finish("net", "bridge"), s.subjects.Report("net", "bridge"),
		s.subjects.Step("net", "bridge"), s.subjects.Event("container", "c", "container.removed"), "$JS.API.INFO", "$SYS.REQ.SERVER.PING",
	} {
		if _, err := thief.Request(within(t), subject, nil, []byte(`{"name":"container.remove"}`)); err == nil || !strings.Contains(err.Error(), "may not send") {
			t.Errorf("%s: %v", subject, err)
		}
	}
	if len(calls) != 0 {
		t.Errorf("a command came through: %+v", <-calls)
	}
	// Nor can it listen to what is not its own.
	for _, subject := range []string{bus.InboxPrefix(victim.ID()) + ">", "_INBOX.>", s.subjects.Commands(), s.subjects.Queries(), ">"} {
		heard := make(chan string, 16)
		if _, err := thief.Subscribe(subject, func(m *wire.Msg) { heard <- m.Subject }); err != nil {
			t.Fatal(err)
		}
		if err := victim.Query(within(t), bus.QueryHistory, bus.HistoryQuery{}, nil); err == nil {
			t.Fatal("a log out of nothing")
		}
		if len(heard) != 0 {
			t.Errorf("%s: overheard %s", subject, <-heard)
		}
	}
}

// TestJetStreamsOwnMessagesAreDropped: the second line of defence, for a host or an
// engine that is connected to a server with JetStream in its account.
func TestJetStreamsOwnMessagesAreDropped(t *testing.T) {
	calls := make(chan bus.Command, 16)
	s := startWith(t, testConfig(t), Handlers{Command: func(_ Call, cmd bus.Command, reply Reply) {
		calls <- cmd
		reply(bus.Receipt{}, nil)
	}})
	conn := rawConn(t, s, bus.RoleEngine, accountEngine)
	own := jsonNumber(conn.Info().ClientID)
	subject := s.subjects.Command(own, "container.remove")
	if err := conn.Publish(subject, "$JS.ACK.x.y.1.1.1.1.0", nil, []byte(`{"name":"container.remove","job":"forged"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Request(within(t), subject, nil, []byte(`{"name":"container.remove","job":"genuine"}`)); err != nil {
		t.Fatal(err)
	}
	if got := <-calls; got.Job != "genuine" || len(calls) != 0 {
		t.Errorf("got %+v and %d more", got, len(calls))
	}
}
