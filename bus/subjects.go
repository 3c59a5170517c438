package bus

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/gantryd/gantry/bus/internal/wire"
)

// Subjects makes and reads the subjects of one node. No other file knows them.
//
//	gantry.<node>.cmd.<conn>.<noun>.<verb>        a command of a connection
//	gantry.<node>.query.<conn>.<noun>.<what>      a query of a connection
//	gantry.<node>.event.<noun>.<id>.<what>        an event; in the stream without <what>
//	gantry.<node>.step.<kind>.<driver>            a step for a driver; .cancel.… takes it back
//	gantry.<node>.ask.<kind>.<driver>             a question to a driver; .cancel.… ends it, too
//	gantry.<node>.finish.<kind>.<driver>          its result; .report.… what the host has seen
//	gantry.<node>.progress.<job>                  how far a job has come; never an event
//
// A part that may hold any bytes is escaped (see token).
type Subjects struct{ Node string }

func (s Subjects) of(parts ...string) string {
	return "gantry." + token(s.Node) + "." + strings.Join(parts, ".")
}

// Command is where the connection sends the command, e.g. "container.create".
func (s Subjects) Command(conn, name string) string { return s.of("cmd", token(conn), tokens(name)) }

// Query is where the connection sends the query, e.g. "container.list".
func (s Subjects) Query(conn, name string) string { return s.of("query", token(conn), tokens(name)) }

// Commands are all commands of all connections.
func (s Subjects) Commands() string { return s.of("cmd", "*", ">") }

// Queries are all queries of all connections.
func (s Subjects) Queries() string { return s.of("query", "*", ">") }

// ParseCommand takes the subject of a command apart.
func (s Subjects) ParseCommand(subject string) (conn, name string, ok bool) {
	return s.parseNamed("cmd", subject)
}

// ParseQuery takes the subject of a query apart.
func (s Subjects) ParseQuery(subject string) (conn, name string, ok bool) {
	return s.parseNamed("query", subject)
}

func (s Subjects) parseNamed(what, subject string) (conn, name string, ok bool) {
	rest, ok := strings.CutPrefix(subject, s.of(what)+".")
	if !ok {
		return "", "", false
	}
	conn, name, ok = strings.Cut(rest, ".")
	return untoken(conn), untokens(name), ok && name != ""
}

// Event is where an event is published. The name is its own, e.g.
// "container.created"; what is before its first dot gives way to the noun.
func (s Subjects) Event(noun, id, name string) string {
	_, what, ok := strings.Cut(name, ".")
	if !ok {
		what = name
	}
	return s.of("event", token(noun), token(id), tokens(what))
}

// Events are all events of the node, or those of one noun, or those about one id.
func (s Subjects) Events(noun, id string) string {
	switch {
	case noun == "":
		return s.of("event", ">")
	case id == "":
		return s.of("event", token(noun), ">")
	}
	return s.of("event", token(noun), token(id), ">")
}

// Kept is where an event is kept in the stream. It is without the event's name:
// JetStream remembers each subject for ever, in memory, and reads them all again
// after a crash.
func (s Subjects) Kept(noun, id string) string { return s.of("event", token(noun), token(id)) }

// KeptAbout are the subjects in the stream of all events, or of those of one noun, or
// of those about one id. Streams of before 0.1 have the event's name in them, too.
func (s Subjects) KeptAbout(noun, id string) []string {
	about := s.Events(noun, id)
	if noun == "" || id == "" {
		return []string{about}
	}
	return []string{s.Kept(noun, id), about}
}

// parseEvent reads what an event's subject says it is about.
func (s Subjects) parseEvent(subject string) (noun, id string) {
	rest := strings.TrimPrefix(subject, s.of("event")+".")
	noun, rest, _ = strings.Cut(rest, ".")
	id, _, _ = strings.Cut(rest, ".")
	return untoken(noun), untoken(id)
}

// Step is where the steps of a driver are sent.
func (s Subjects) Step(kind, driver string) string { return s.of("step", token(kind), token(driver)) }

// Cancel is where the steps of a driver are taken back.
func (s Subjects) Cancel(kind, driver string) string {
	return s.of("cancel", token(kind), token(driver))
}

// Ask is where a driver's host is asked.
func (s Subjects) Ask(kind, driver string) string { return s.of("ask", token(kind), token(driver)) }

// Finish is where a driver's host sends results.
func (s Subjects) Finish(kind, driver string) string {
	return s.of("finish", token(kind), token(driver))
}

// Report is where a driver's host sends what it has seen: inventory, exits.
func (s Subjects) Report(kind, driver string) string {
	return s.of("report", token(kind), token(driver))
}

// Finishes are the results of all drivers.
func (s Subjects) Finishes() string { return s.of("finish", "*", "*") }

// Reports are the reports of all drivers.
func (s Subjects) Reports() string { return s.of("report", "*", "*") }

// ParseFinish takes the subject of a result apart.
func (s Subjects) ParseFinish(subject string) (kind, driver string, ok bool) {
	return s.parseDriver("finish", subject)
}

// ParseReport takes the subject of a report apart.
func (s Subjects) ParseReport(subject string) (kind, driver string, ok bool) {
	return s.parseDriver("report", subject)
}

func (s Subjects) parseDriver(what, subject string) (kind, driver string, ok bool) {
	rest, ok := strings.CutPrefix(subject, s.of(what)+".")
	if !ok {
		return "", "", false
	}
	kind, driver, ok = strings.Cut(rest, ".")
	return untoken(kind), untoken(driver), ok && !strings.Contains(driver, ".")
}

// Progress is where the progress of a job is told; of any job if it is empty.
func (s Subjects) Progress(job string) string {
	if job == "" {
		return s.of("progress", "*")
	}
	return s.of("progress", token(job))
}

// Aside is what a stream that was set aside listens to: nothing is sent there.
func (s Subjects) Aside(stream string) string { return s.of("aside", token(stream)) }

// OpenEvents is where a stock NATS client asks for its consumer. It does not know
// the node, and is in an account with nothing else in it.
const OpenEvents = "gantry.events.open"

// EventsStream begins the names of the node's streams; a number follows.
const EventsStream = "gantry-events-"

// InboxPrefix is what the reply subjects of a connection begin with.
func InboxPrefix(conn string) string { return wire.InboxPrefix(token(conn)) }

// Rights says what a connection of a role may send and receive.
func (s Subjects) Rights(role Role, conn string) (publish, subscribe []string) {
	c, inbox := token(conn), InboxPrefix(conn)+">"
	listen := []string{inbox, s.Events("", ""), s.Progress("")}
	switch role {
	case RoleControl:
		return []string{s.of("cmd", c, ">"), s.of("query", c, ">")}, listen
	case RoleRead:
		return []string{s.of("query", c, ">")}, listen
	case RoleHost:
		return []string{s.Finishes(), s.Reports(), s.Progress("")},
			[]string{inbox, s.of("step", "*", "*"), s.of("cancel", "*", "*"), s.of("ask", "*", "*")}
	case RoleEngine:
		return []string{s.of(">"), "_INBOX.>"}, []string{s.of(">"), inbox}
	}
	return []string{}, []string{inbox}
}

// maxToken bounds a part of a subject in bytes, before it is escaped: a line of
// the protocol has at most 4096.
const maxToken = 256

// token is one part of a subject: dots, blanks, wildcards and what is no
// printable ASCII become %XX, as in a URL. The empty one is "%". What is too
// long keeps its beginning and gets a hash; the event itself has it whole.
func token(s string) string {
	if s == "" {
		return "%"
	}
	if len(s) > maxToken {
		sum := sha256.Sum256([]byte(s))
		s = s[:maxToken/2] + "~" + hex.EncodeToString(sum[:])
	}
	plain := 0
	for plain < len(s) && !special(s[plain]) {
		plain++
	}
	if plain == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:plain])
	for i := plain; i < len(s); i++ {
		if special(s[i]) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// special reports whether a byte is not what it is in a part of a subject.
func special(c byte) bool {
	return c <= ' ' || c >= 0x7f || c == '.' || c == '*' || c == '>' || c == '%'
}

// tokens keeps the dots of a name and escapes what is between them.
func tokens(name string) string {
	if !strings.Contains(name, ".") {
		return token(name)
	}
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = token(p)
	}
	return strings.Join(parts, ".")
}

func untoken(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			var c byte
			if i+2 < len(s) {
				if _, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err == nil {
					b.WriteByte(c)
					i += 2
				}
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func untokens(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = untoken(p)
	}
	return strings.Join(parts, ".")
}
