package driver

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pair is both ends of a unix socket.
func pair(t *testing.T, network, address string) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestPeerCredentials(t *testing.T) {
	client, server := pair(t, "unix", filepath.Join(t.TempDir(), "s"))
	ours, theirs := PeerCredentials(), peerCredentials{uid: uint32(os.Getuid()) + 1}
	if _, info, err := ours.ServerHandshake(server); err != nil || info.AuthType() != "peercred" {
		t.Errorf("our own peer: %v", err)
	}
	if _, _, err := ours.ClientHandshake(context.Background(), "", client); err != nil {
		t.Errorf("our own server: %v", err)
	}
	for _, err := range []error{second(theirs.ServerHandshake(server)), second(theirs.ClientHandshake(context.Background(), "", client))} {
		if err == nil || !strings.Contains(err.Error(), "is served") {
			t.Errorf("a peer of another uid: %v", err)
		}
	}
	_, tcp := pair(t, "tcp", "127.0.0.1:0")
	if _, _, err := ours.ServerHandshake(tcp); err == nil || !strings.Contains(err.Error(), "not on a unix socket") {
		t.Errorf("a peer over TCP: %v", err)
	}
}

func second[A, B any](_ A, _ B, err error) error { return err }
