package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// readerIdle is how long a reader's consumer is kept when nobody asks it.
const readerIdle = time.Hour

// readerConsumer begins the names of readers' consumers.
const readerConsumer = "reader-"

// openRequest is what a reader asks for.
type openRequest struct {
	Name string `json:"name"` // chosen by the reader; the same name takes the place of the one before
	From uint64 `json:"from"` // first sequence; 0: only new ones
	Noun string `json:"noun"` // only events of one noun
	ID   string `json:"id"`   // only those about one id of that noun
}

// openAnswer says what to pull from.
type openAnswer struct {
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	Error    string `json:"error,omitempty"`
}

// openEvents lets stock NATS clients in, if it is wanted: on a loopback address,
// with a credentials file.
func (s *Server) openEvents(ctx context.Context) error {
	if s.cfg.Events == "" {
		return nil
	}
	addr, err := net.ResolveTCPAddr("tcp", s.cfg.Events)
	if err != nil || !addr.IP.IsLoopback() {
		return errclass.Errorf(errdefs.ErrInvalidArgument,
			"events at %q: want a loopback address with a port, e.g. 127.0.0.1:4222: what is told there is not encrypted", s.cfg.Events)
	}
	if s.registry.key, err = credentials(s.cfg.Credentials); err != nil {
		return fmt.Errorf("credentials of the events' readers: %w", err)
	}
	if err := s.importStream(); err != nil {
		return fmt.Errorf("open the stream to readers: %w", err)
	}
	if err := s.serveReaders(ctx); err != nil {
		return fmt.Errorf("open the stream to readers: %w", err)
	}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return fmt.Errorf("open events at %s: %w", s.cfg.Events, err)
	}
	s.mu.Lock()
	s.eventsAddr = l.Addr()
	s.mu.Unlock()
	s.openDoor(l, "", bus.RoleRead, accountReaders)
	return nil
}

// EventsAddr is where stock NATS clients are let in; nil if they are not.
func (s *Server) EventsAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eventsAddr
}

// importStream lets the readers' account pull from the stream's consumers, and
// nothing else.
func (s *Server) importStream() error {
	from, to := s.registry.accounts[accountStream], s.registry.accounts[accountReaders]
	for _, subject := range pullSubjects(s.currentStream()) {
		if err := from.AddServiceExportWithResponse(subject, server.Streamed, nil); err != nil {
			return fmt.Errorf("export %s: %w", subject, err)
		}
		if err := to.AddServiceImport(from, subject, subject); err != nil {
			return fmt.Errorf("import %s: %w", subject, err)
		}
	}
	return nil
}

// pullSubjects are what a reader may ask JetStream: for the next messages of a
// consumer. Not to make one: its deliver_subject could be any.
func pullSubjects(stream string) []string {
	return []string{"$JS.API.CONSUMER.MSG.NEXT." + stream + ".*", "$JS.ACK." + stream + ".>"}
}

// consumerInfo begins the subjects on which stock clients ask for a consumer's
// description. It is answered here: JetStream would look for it in the readers' account.
func consumerInfo(stream string) string { return "$JS.API.CONSUMER.INFO." + stream + "." }

func (r *registry) readerPermissions(p peer) *server.Permissions {
	if p.role == bus.RoleEngine {
		return nil
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: append(pullSubjects(r.stream()), bus.OpenEvents, consumerInfo(r.stream())+"*")},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}
}

// signed says whether the client has the key: it has signed the nonce that the
// server gave it. What else it says of itself is of no matter.
func (r *registry) signed(c server.ClientAuthentication) bool {
	key, err := nkeys.FromPublicKey(r.key)
	if err != nil || len(c.GetNonce()) == 0 {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(c.GetOpts().Sig)
	if err != nil {
		sig, err = base64.StdEncoding.DecodeString(c.GetOpts().Sig)
	}
	return err == nil && key.Verify(c.GetNonce(), sig) == nil
}

// credentials gives the public key of the credentials file at path, which is
// made if it is not there.
func credentials(path string) (string, error) {
	if path == "" {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "no file is named")
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if content, err = newCredentials(); err == nil {
			err = writeNew(path, content)
		}
	}
	if err != nil {
		return "", err
	}
	key, err := nkeys.ParseDecoratedNKey(content)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return key.PublicKey()
}

// newCredentials makes a user's key in the format that all NATS clients
// read. The token in it is for the format's sake; only the key counts.
func newCredentials() ([]byte, error) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		return nil, err
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	public, err := user.PublicKey()
	if err != nil {
		return nil, err
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, err
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = "gantry events"
	token, err := claims.Encode(account)
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(token, seed)
}

// writeNew writes a file that only we may read. A file that is there is an error.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		_ = f.Close() // the first error is the one that matters
		return err
	}
	return f.Close()
}

// serveReaders makes the consumers that readers ask for.
func (s *Server) serveReaders(ctx context.Context) error {
	js, err := s.openJetStream(ctx)
	if err != nil {
		return err
	}
	nc, err := s.splicer.dial(peer{role: bus.RoleEngine, account: accountReaders, actor: ownActor()})
	if err != nil {
		return err
	}
	conn, err := wire.New(ctx, nc, "readers")
	if err != nil {
		_ = nc.Close() // the first error is the one that matters
		return err
	}
	requests := make(chan *wire.Msg, maxReaders)
	info := consumerInfo(s.currentStream())
	for _, subject := range []string{bus.OpenEvents, info + "*"} {
		_, err = conn.Subscribe(subject, func(m *wire.Msg) {
			if m.Subject != bus.OpenEvents && !strings.HasPrefix(m.Subject, info) || !strings.HasPrefix(m.Reply, "_INBOX.") {
				return
			}
			select {
			case requests <- m:
			default: // so many at once: they ask again
			}
		})
		if err != nil {
			return err
		}
	}
	run, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.answerReaders(run, js, conn, requests)
	}()
	s.onClose(func() {
		cancel()
		<-done
		_, _ = conn.Close(), js.conn.Close() // the server ends next
	})
	return conn.Flush(ctx)
}

func (s *Server) answerReaders(ctx context.Context, js jetStream, conn *wire.Conn, requests <-chan *wire.Msg) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-requests:
			data, err := s.answerReader(ctx, js, m)
			if err == nil {
				err = conn.Publish(m.Reply, "", nil, data)
			}
			if err != nil {
				s.log.Debug("answer a reader", "error", err)
			}
		}
	}
}

func (s *Server) answerReader(ctx context.Context, js jetStream, m *wire.Msg) ([]byte, error) {
	if m.Subject != bus.OpenEvents {
		return js.raw(ctx, strings.TrimPrefix(m.Subject, "$JS.API."), nil)
	}
	answer := openAnswer{Stream: s.currentStream()}
	var err error
	if answer.Consumer, err = s.openConsumer(ctx, js, answer.Stream, m.Data); err != nil {
		answer.Error = err.Error()
	}
	return json.Marshal(answer)
}

// openConsumer makes the reader's consumer, in place of the one of that name.
func (s *Server) openConsumer(ctx context.Context, js jetStream, stream string, body []byte) (string, error) {
	var q openRequest
	if err := json.Unmarshal(body, &q); err != nil {
		return "", fmt.Errorf("read the request: %w", err)
	}
	if !regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`).MatchString(q.Name) {
		return "", fmt.Errorf("name %q: want 1 to 64 of [a-zA-Z0-9_-]", q.Name)
	}
	name := readerConsumer + q.Name
	err := js.ask(ctx, "CONSUMER.DELETE."+stream+"."+name, nil, nil)
	if err != nil && !errdefs.IsNotFound(err) {
		return "", err
	}
	cfg := server.ConsumerConfig{
		Name: name, FilterSubjects: s.subjects.KeptAbout(q.Noun, q.ID),
		DeliverPolicy: server.DeliverNew, AckPolicy: server.AckNone, ReplayPolicy: server.ReplayInstant,
		InactiveThreshold: readerIdle, Replicas: 1, MemoryStorage: true,
	}
	if q.From > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = server.DeliverByStartSequence, q.From
	}
	in := server.CreateConsumerRequest{Stream: stream, Config: cfg, Action: server.ActionCreate}
	return name, js.ask(ctx, "CONSUMER.CREATE."+stream+"."+name, in, nil)
}
