package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	// streamWithin bounds one request to JetStream.
	streamWithin = 10 * time.Second
	// readBatch is how many messages are asked of the stream at once.
	readBatch = 256
	// maxReaders bounds the requests of stock clients that wait.
	maxReaders = 64
	// maxConsumers bounds the consumers of stock clients.
	maxConsumers = 256
)

// jetStream asks the server's JetStream, on a connection of the account STREAM.
type jetStream struct {
	conn *wire.Conn
}

// raw sends a request of the JetStream API and gives the answer as it is.
func (j jetStream) raw(ctx context.Context, api string, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, streamWithin)
	defer cancel()
	m, err := j.conn.Request(ctx, "$JS.API."+api, nil, data)
	if err != nil {
		return nil, fmt.Errorf("ask JetStream for %s: %w", api, err)
	}
	return m.Data, nil
}

// ask sends a request of the JetStream API and reads the answer into out.
func (j jetStream) ask(ctx context.Context, api string, in, out any) error {
	var data []byte
	if in != nil {
		var err error
		if data, err = json.Marshal(in); err != nil {
			return err
		}
	}
	data, err := j.raw(ctx, api, data)
	if err != nil {
		return err
	}
	var failed struct {
		Error *server.ApiError `json:"error"`
	}
	if err := json.Unmarshal(data, &failed); err != nil {
		return fmt.Errorf("ask JetStream for %s: %w", api, err)
	}
	if failed.Error != nil {
		return errclass.Errorf(classOf(failed.Error), "ask JetStream for %s: %s", api, failed.Error.Description)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// classOf is the class of JetStream's refusal, by its HTTP-like code.
func classOf(e *server.ApiError) error {
	switch e.Code {
	case 400:
		return errdefs.ErrFailedPrecondition
	case 404:
		return errdefs.ErrNotFound
	case 503:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrInternal
}

// streamConfig is that of a new stream of events: everything is kept, in files. They are
// written a little later, many messages at once: what a crash takes is copied again,
// from the log.
func streamConfig(name string, subjects ...string) server.StreamConfig {
	return server.StreamConfig{
		Name: name, Subjects: subjects, Description: "events, an exact copy of the log",
		Retention: server.LimitsPolicy, Storage: server.FileStorage, Discard: server.DiscardNew,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPer: -1, MaxConsumers: maxConsumers, MaxMsgSize: -1, Replicas: 1,
		AllowDirect: true, DenyDelete: true, DenyPurge: true, PersistMode: server.AsyncPersistMode,
	}
}

// newest is the stream with the highest number; empty if there is none.
func (j jetStream) newest(ctx context.Context) (string, error) {
	var names struct {
		Streams []string `json:"streams"`
		Total   int      `json:"total"`
	}
	var all []string
	for {
		if err := j.ask(ctx, "STREAM.NAMES", map[string]int{"offset": len(all)}, &names); err != nil {
			return "", err
		}
		all = append(all, names.Streams...)
		if len(names.Streams) == 0 || len(all) >= names.Total {
			break
		}
		names.Streams = nil
	}
	all = slices.DeleteFunc(all, func(n string) bool { return streamNumber(n) == 0 })
	if len(all) == 0 {
		return "", nil
	}
	return slices.MaxFunc(all, func(a, b string) int { return streamNumber(a) - streamNumber(b) }), nil
}

func streamNumber(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, bus.EventsStream))
	if err != nil || !strings.HasPrefix(name, bus.EventsStream) {
		return 0
	}
	return n
}

// state is the stream's first and last sequence and how many messages it has.
func (j jetStream) state(ctx context.Context, stream string) (first, last, count uint64, err error) {
	var info struct {
		State struct {
			First uint64 `json:"first_seq"`
			Last  uint64 `json:"last_seq"`
			Count uint64 `json:"messages"`
		} `json:"state"`
	}
	err = j.ask(ctx, "STREAM.INFO."+stream, nil, &info)
	return info.State.First, info.State.Last, info.State.Count, err
}

// listenTo has the stream listen to another subject, and be as it is otherwise.
func (j jetStream) listenTo(ctx context.Context, stream, subject string) error {
	var info struct {
		Config server.StreamConfig `json:"config"`
	}
	if err := j.ask(ctx, "STREAM.INFO."+stream, nil, &info); err != nil {
		return err
	}
	info.Config.Subjects = []string{subject}
	return j.ask(ctx, "STREAM.UPDATE."+stream, info.Config, nil)
}

// stored is one message of the stream.
type stored struct {
	frame bus.Frame // without payload
	seq   uint64
	line  []byte
}

// read calls f with the messages from the sequence to the stream's end.
func (j jetStream) read(ctx context.Context, stream string, from uint64, f func(stored) error) error {
	inbox := "gantry.reads." + strings.TrimPrefix(j.conn.NewInbox(), "_INBOX.")
	got := make(chan *wire.Msg, readBatch+1)
	sub, err := j.conn.Subscribe(inbox, func(m *wire.Msg) {
		select {
		case got <- m:
		default: // more than was asked for: the check of the sequence finds it
		}
	})
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		next, err := j.readBatch(ctx, stream, inbox, got, from, f)
		if err != nil || next == from {
			return err
		}
		from = next
	}
}

// readBatch reads some messages and gives the sequence to go on with, which is from
// itself at the end.
func (j jetStream) readBatch(ctx context.Context, stream, inbox string, got <-chan *wire.Msg, from uint64, f func(stored) error) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, streamWithin)
	defer cancel()
	data, err := json.Marshal(server.JSApiMsgGetRequest{Seq: from, Batch: readBatch, MaxBytes: maxPending / 2})
	if err != nil {
		return from, err
	}
	if err := j.conn.Publish("$JS.API.DIRECT.GET."+stream, inbox, nil, data); err != nil {
		return from, err
	}
	for {
		select {
		case m := <-got:
			if m.Status != 0 { // 204: end of the batch; 404: nothing there
				return from, nil
			}
			frame, seq, err := bus.ParseFrame(m.Header.Get)
			if err == nil && (seq != from || m.Header.Get("Nats-Sequence") != strconv.FormatUint(seq, 10)) {
				err = errclass.Errorf(errdefs.ErrDataLoss, "the stream has event %d at %s where %d should be",
					seq, m.Header.Get("Nats-Sequence"), from)
			}
			if err == nil {
				err = f(stored{frame: frame, seq: seq, line: m.Data})
			}
			if err != nil {
				return from, err
			}
			from++
		case <-j.conn.Done():
			return from, j.conn.Err()
		case <-ctx.Done():
			return from, fmt.Errorf("read the stream at %d: %w", from, ctx.Err())
		}
	}
}

// frames calls f with the whole frames from the sequence, which begins one, and
// gives the sequence after the last whole one.
func (j jetStream) frames(ctx context.Context, stream string, from uint64, f func(bus.Frame) error) (uint64, error) {
	var open bus.Frame
	var have uint32
	err := j.read(ctx, stream, from, func(m stored) error {
		if have == 0 {
			open = m.frame
		}
		if m.seq != open.First+uint64(have) || m.frame.First != open.First || m.frame.Count != open.Count {
			return errclass.Errorf(errdefs.ErrDataLoss, "event %d of the stream is not where its frame is", m.seq)
		}
		open.Payload = append(append(open.Payload, m.line...), '\n')
		if have++; have < open.Count {
			return nil
		}
		have, from = 0, open.Last()+1
		return f(open)
	})
	return from, err
}
