package server

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func startEvents(t *testing.T) (*Server, *Publisher, *memJournal, string) {
	t.Helper()
	cfg, j := testConfig(t), &memJournal{}
	cfg.Events, cfg.Credentials = "127.0.0.1:0", filepath.Join(t.TempDir(), "events.creds")
	s, p, _ := openStream(t, cfg, j)
	if err := s.Serve(echo()); err != nil {
		t.Fatal(err)
	}
	return s, p, j, cfg.Credentials
}

func stock(t *testing.T, s *Server, opts ...nats.Option) (*nats.Conn, chan error) {
	t.Helper()
	errs := make(chan error, 16)
	opts = append(opts, nats.Timeout(20*time.Second), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	nc, err := nats.Connect("nats://"+s.EventsAddr().String(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, errs
}

func open(t *testing.T, nc *nats.Conn, request string) openAnswer {
	t.Helper()
	m, err := nc.Request(bus.OpenEvents, []byte(request), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var a openAnswer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// pull takes events with the stock client until it has the sequence.
func pull(t *testing.T, nc *nats.Conn, a openAnswer, from, to uint64) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.Consumer(within(t), a.Stream, a.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for seq := from; seq <= to; seq++ {
		m, err := messages.Next(jetstream.NextContext(within(t)))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Headers().Get(bus.HeaderSeq); got != fmt.Sprint(seq) {
			t.Fatalf("event %s, want %d", got, seq)
		}
		if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != seq {
			t.Fatalf("the stream says %+v of event %d, %v", meta, seq, err)
		}
		if _, _, err := bus.ParseFrame(m.Headers().Get); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStockClientFollowsAndResumes(t *testing.T) {
	s, p, j, creds := startEvents(t)
	for range 50 {
		p.Publish(j.add(2, "c1", "container.created"))
	}
	nc, _ := stock(t, s, nats.UserCredentials(creds))
	a := open(t, nc, `{"name":"logger","from":1}`)
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	pull(t, nc, a, 1, 60)
	nc.Close()
	p.Publish(j.add(3, "c2", "container.created"))
	nc, _ = stock(t, s, nats.UserCredentials(creds))
	pull(t, nc, open(t, nc, `{"name":"logger","from":61}`), 61, 103)
	if a := open(t, nc, `{"name":"../x"}`); a.Error == "" {
		t.Error("a bad name was taken")
	}
	if info, err := os.Stat(creds); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the credentials file: %v, %v", info.Mode(), err)
	}
}

// TestStockClientReadsOneContainer: also from a stream whose older messages have the
// event's name in their subjects.
func TestStockClientReadsOneContainer(t *testing.T) {
	s, p, j, creds := startEvents(t)
	p.Publish(j.add(1, "c1", "container.created"), j.add(1, "c2", "container.created"), j.add(1, "c1", "image.pulled"))
	if err := p.WaitCopied(within(t), 3); err != nil {
		t.Fatal(err)
	}
	js, err := s.openJetStream(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer js.conn.Close()
	old, err := s.subjects.Messages(j.add(1, "c1", "container.started"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.conn.Request(within(t), s.subjects.Event("container", "c1", "container.started"), old[0].Header, old[0].Event.Line); err != nil {
		t.Fatal(err)
	}
	nc, _ := stock(t, s, nats.UserCredentials(creds))
	for request, want := range map[string][]string{
		`{"name":"one","from":1,"noun":"container","id":"c1"}`: {"1", "4"},
		`{"name":"noun","from":1,"noun":"container"}`:          {"1", "2", "4"},
		`{"name":"all","from":1}`:                              {"1", "2", "3", "4"},
	} {
		a := open(t, nc, request)
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		c, err := js.Consumer(within(t), a.Stream, a.Consumer)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		fetch := func(n int, wait time.Duration) {
			batch, err := c.Fetch(n, jetstream.FetchMaxWait(wait))
			if err != nil {
				t.Fatal(err)
			}
			for m := range batch.Messages() {
				got = append(got, m.Headers().Get(bus.HeaderSeq))
			}
		}
		fetch(len(want), 20*time.Second)
		fetch(1, 100*time.Millisecond) // nothing more
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", request, got, want)
		}
	}
}

func TestStockClientWithoutTheKey(t *testing.T) {
	s, _, _, _ := startEvents(t)
	other := filepath.Join(t.TempDir(), "other.creds")
	if _, err := credentials(other); err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]nats.Option{
		"another key": nats.UserCredentials(other), "nothing": nats.Name("x"), "a password": nats.UserInfo("engine", "x"),
	} {
		nc, err := nats.Connect("nats://"+s.EventsAddr().String(), opt, nats.MaxReconnects(0))
		if err == nil {
			nc.Close()
			t.Errorf("%s: let in", name)
		}
	}
	cfg := testConfig(t)
	cfg.Events, cfg.Credentials = "0.0.0.0:0", other
	open, _, _ := openStream(t, cfg, &memJournal{})
	if err := open.Serve(Handlers{}); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("events for everybody: %v", err)
	}
}

// TestPushConsumerForgery: a reader has JetStream itself write onto a subject that
// the reader may not write on.
func TestPushConsumerForgery(t *testing.T) {
	s, p, j, creds := startEvents(t)
	p.Publish(j.add(5, "c1", "container.created"))
	if err := p.WaitCopied(within(t), 5); err != nil {
		t.Fatal(err)
	}
	targets := []string{s.subjects.Command("1", "container.remove"), s.subjects.Event("container", "c1", "container.removed")}
	heard := make(chan string, 100)
	for _, a := range []account{accountEngine, accountStream} {
		spy := spyOn(t, s, a)
		for _, target := range targets {
			spy(target, heard)
		}
	}
	nc, _ := stock(t, s, nats.UserCredentials(creds))
	a := open(t, nc, `{"name":"x","from":1}`)
	for _, target := range targets {
		push := fmt.Sprintf(`{"stream_name":%q,"config":{"name":"p","deliver_subject":%q,"ack_policy":"none","deliver_policy":"all"}}`, a.Stream, target)
		for _, api := range []string{"CONSUMER.CREATE." + a.Stream, "CONSUMER.CREATE." + a.Stream + ".p", "CONSUMER.DURABLE.CREATE." + a.Stream + ".p"} {
			if m, err := nc.Request("$JS.API."+api, []byte(push), 100*time.Millisecond); err == nil && !strings.Contains(string(m.Data), `"error"`) {
				t.Errorf("a reader has made a push consumer: %s", m.Data)
			}
		}
		// The consumer it may ask, with the target as the reply.
		for _, api := range []string{"CONSUMER.MSG.NEXT.", "CONSUMER.INFO."} {
			if err := nc.PublishRequest("$JS.API."+api+a.Stream+"."+a.Consumer, target, []byte(`{"batch":5}`)); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.PublishRequest(bus.OpenEvents, target, []byte(`{"name":"y"}`)); err != nil {
			t.Fatal(err)
		}
		_ = nc.Publish(target, []byte("straight"))
	}
	_ = nc.Flush()
	select {
	case got := <-heard:
		t.Errorf("forged: %s", got)
	case <-time.After(300 * time.Millisecond):
	}
	// The stream is what it was.
	copied(t, s, p, j)
	// With the right to make consumers, the same attack works: the test can fail.
	// The target is one that the stream does not take in.
	js := jetStream{rawConn(t, s, bus.RoleEngine, accountStream)}
	push := map[string]any{"stream_name": a.Stream, "config": map[string]any{
		"name": "p", "deliver_subject": targets[0], "ack_policy": "none", "deliver_policy": "all"}}
	if err := js.ask(within(t), "CONSUMER.CREATE."+a.Stream+".p", push, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard:
	case <-within(t).Done():
		t.Error("the attack fails even with the right to it: the test proves nothing")
	}
}

// TestReadersSeeNothingElse: commands, queries and live events are of another account.
func TestReadersSeeNothingElse(t *testing.T) {
	s, _, _, creds := startEvents(t)
	nc, errs := stock(t, s, nats.UserCredentials(creds))
	if _, err := nc.Subscribe("gantry.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	_ = nc.Flush()
	select {
	case err := <-errs:
		if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
			t.Error(err)
		}
	case <-within(t).Done():
		t.Error("a reader may listen to everything")
	}
	c := dial(t, s.ControlSocket())
	if err := c.Query(context.Background(), "container.list", nil, nil); err != nil {
		t.Error(err)
	}
}
