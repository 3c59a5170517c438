// Package server is the bus's inner end: an embedded NATS server without any
// listener of its own, the sockets that lead into it, who may do what, and the
// stream that holds the events for whoever wants to listen.
//
// # Who is it
//
// The server cannot see who is at the other end of a unix socket. So each
// socket is accepted here, the kernel is asked for the peer's credentials
// (SO_PEERCRED), and the connection is then spliced into the server, which gives
// it a number. That number is in the first line that the server sends
// (INFO, "client_id"); it is read here before the client sees it, and is all that
// the authenticator needs to know the peer again. Nothing that the client says
// has a part in it.
//
// # Three accounts
//
// A NATS account is a space of subjects of its own.
//
//	ENGINE   commands, queries, steps, live events. No JetStream: no client
//	         can make the server itself write onto a subject.
//	STREAM   the stream of events. Only the publisher connects to it.
//	READERS  stock NATS clients that come through --events. They can pull from
//	         consumers that the engine has made, through an import; an
//	         answer to an import cannot leave their account.
//
// # Two forgeries
//
// Seen with NATS: a client that may not publish on a subject still wrote there, by a
// permitted request with that subject as its reply, and by a push consumer with that
// subject as its deliver_subject. Against the first, an answer goes only to a
// reply subject under the asking connection's own inbox. Against the second,
// the accounts; and a message is dropped whose subject is not one that was
// subscribed to, or whose reply belongs to JetStream. Both are tests.
package server
