package server

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/nats-io/nats-server/v2/server"
)

// account is one of the three spaces of subjects.
type account int

const (
	accountEngine account = iota
	accountStream
	accountReaders
)

// peer is what is known of a connection.
type peer struct {
	conn    string // the server's number of it
	role    bus.Role
	actor   bus.Actor
	account account
}

// registry knows the connections. It is the server's authenticator.
type registry struct {
	subjects bus.Subjects
	accounts map[account]*server.Account // set before the server starts, then only read
	key      string                      // public key of stock clients; empty: none are let in
	stream   func() string               // name of the current stream

	mu    sync.Mutex // guards peers
	peers map[uint64]peer
}

// findAccounts looks up the accounts as the server has made them, before it starts.
func (r *registry) findAccounts(ns *server.Server) error {
	for a, name := range map[account]string{accountEngine: "ENGINE", accountStream: "STREAM", accountReaders: "READERS"} {
		acc, err := ns.LookupAccount(name)
		if err != nil {
			return fmt.Errorf("account %s: %w", name, err)
		}
		r.accounts[a] = acc
	}
	// The server lets every account ask JetStream, unless one of these subjects
	// has been imported from elsewhere. Nobody may publish on this one.
	const shadow = "$JS.API.INFO"
	stream := r.accounts[accountStream]
	if err := stream.AddServiceExport(shadow, nil); err != nil {
		return fmt.Errorf("export %s: %w", shadow, err)
	}
	for _, a := range []account{accountEngine, accountReaders} {
		if err := r.accounts[a].AddServiceImport(stream, shadow, shadow); err != nil {
			return fmt.Errorf("import %s: %w", shadow, err)
		}
	}
	return nil
}

func (r *registry) add(id uint64, p peer) {
	p.conn = strconv.FormatUint(id, 10)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers[id] = p
}

func (r *registry) remove(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.peers, id)
}

// find is the connection by the number that is in its subjects.
func (r *registry) find(conn string) (peer, bool) {
	id, err := strconv.ParseUint(conn, 10, 64)
	if err != nil {
		return peer{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.peers[id]
	return p, ok
}

// Check says who a connection is and what it may do. The server calls it with
// what the client said; only the number that the server itself gave counts, and
// for a stock client the signature of its key.
func (r *registry) Check(c server.ClientAuthentication) bool {
	r.mu.Lock()
	p, ok := r.peers[c.GetID()]
	r.mu.Unlock()
	stranger := p.account == accountReaders && p.role != bus.RoleEngine
	if !ok || stranger && !r.signed(c) {
		return false
	}
	c.RegisterUser(&server.User{
		Username:    string(p.role) + "-" + p.conn,
		Account:     r.accounts[p.account],
		Permissions: r.permissions(p),
	})
	return true
}

func (r *registry) permissions(p peer) *server.Permissions {
	switch p.account {
	case accountStream:
		return nil // the publisher's own; nobody else gets there
	case accountReaders:
		return r.readerPermissions(p)
	}
	publish, subscribe := r.subjects.Rights(p.role, p.conn)
	perms := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
	if p.role == bus.RoleHost {
		// A host acknowledges steps, to whichever inbox asked.
		perms.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	}
	return perms
}

// mayAnswer says whether reply is a subject of the connection's own.
func mayAnswer(conn, reply string) bool {
	prefix := bus.InboxPrefix(conn)
	return strings.HasPrefix(reply, prefix) && len(reply) > len(prefix) && !strings.ContainsAny(reply, "*>")
}
