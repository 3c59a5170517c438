package driver

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// PeerCredentials are transport credentials that ask the kernel who is at the
// other end of the unix socket (SO_PEERCRED, unix(7)) and accept only our own
// uid. They stand on both sides: the driver's files and sockets may be reached
// by nobody else, and no other user's process can pretend to be a driver.
func PeerCredentials() credentials.TransportCredentials {
	return peerCredentials{uid: uint32(os.Getuid())}
}

type peerCredentials struct{ uid uint32 }

// peerInfo tells gRPC that the peer was checked by the kernel's word.
type peerInfo struct{ credentials.CommonAuthInfo }

// AuthType names the way the peer was checked.
func (peerInfo) AuthType() string { return "peercred" }

func (p peerCredentials) check(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("the peer at %s is not on a unix socket", conn.RemoteAddr())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, nil, err
	}
	if credErr != nil {
		return nil, nil, fmt.Errorf("ask for the peer's credentials: %w", credErr)
	}
	if cred.Uid != p.uid {
		return nil, nil, fmt.Errorf("the peer is uid %d (pid %d); only uid %d is served", cred.Uid, cred.Pid, p.uid)
	}
	level := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return conn, peerInfo{level}, nil
}

// ClientHandshake checks the server.
func (p peerCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.check(conn)
}

// ServerHandshake checks the client.
func (p peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.check(conn)
}

// Info says what protocol this is.
func (p peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone copies the credentials.
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName is of no meaning on a unix socket.
func (p peerCredentials) OverrideServerName(string) error { return nil }
