package bridge

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// announce sends one gratuitous ARP request (RFC 5227, announcement), so that the
// neighbours who knew the address with another hardware address learn the new
// one at once. The socket is closed behind everybody's back: the kernel waits
// for an RCU grace period there (packet_release), some 10 ms.
func (s *spare) announce(mac net.HardwareAddr, addr netip.Addr) error {
	ip := addr.As4()
	packet := make([]byte, 0, 28)
	packet = binary.BigEndian.AppendUint16(packet, 1) // Ethernet
	packet = binary.BigEndian.AppendUint16(packet, unix.ETH_P_IP)
	packet = append(packet, 6, 4, 0, 1) // lengths; request
	packet = append(packet, mac...)
	packet = append(packet, ip[:]...)
	packet = append(packet, 0, 0, 0, 0, 0, 0)
	packet = append(packet, ip[:]...)
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: s.inner, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	return inNamespace(s.ns, func() error {
		sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { go unix.Close(sock) }() //nolint:errcheck // it is not written to any more
		return unix.Sendto(sock, packet, 0, to)
	})
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// inNamespace calls f on a thread that is in the network namespace behind fd.
// The thread is thrown away if it cannot come back.
func inNamespace(fd int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer func() { _ = unix.Close(home) }()
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
			err = f()
		}
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
