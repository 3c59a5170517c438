package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// rtnlReply is more bytes than the kernel says about one link: some 1 kB.
const rtnlReply = 8 << 10

// rtnl is a socket to the part of the kernel that keeps links, addresses and
// routes (rtnetlink(7)) of one network namespace. It is for what every attach
// and detach does: several requests go in one packet, the kernel carries them
// out before the write returns, and the answers are there to be read. The
// netlink library asks them one by one and reads all that there is to read
// about a link.
type rtnl struct {
	mu  sync.Mutex // guards what follows, and keeps requests and answers together
	fd  int
	seq uint32
	buf []byte
}

// openRTNL opens a socket in the calling thread's network namespace.
func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &rtnl{fd: fd}, nil
}

// openRTNLIn opens a socket in the namespace behind ns.
func openRTNLIn(ns int) (r *rtnl, err error) {
	err = inNamespace(ns, func() (err error) {
		r, err = openRTNL()
		return err
	})
	return r, err
}

func (r *rtnl) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fd := r.fd
	r.fd = -1 // closed twice is an error, not another file
	return unix.Close(fd)
}

// linkOp is one message to the kernel, as data.
type linkOp interface {
	put(b *message)
}

// linkInfo is what is asked about a link.
type linkInfo struct {
	Index, Master, MTU int
	Peer               int // index of a pair's other end, in that one's namespace
	Name, Alias        string
	Up, Runs           bool // switched on; passes packets
}

// run carries out what it is given, in order, and returns what the last one that
// asks was told. All are carried out, whatever becomes of those before; the
// error is the first one's.
func (r *rtnl) run(ops ...linkOp) (linkInfo, error) {
	if len(ops) == 0 {
		return linkInfo{}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.seq + 1
	b := message{buf: r.buf[:0]}
	for i, q := range ops {
		r.seq++
		b.seq, b.last = r.seq, i == len(ops)-1
		q.put(&b)
		b.end()
	}
	r.buf = b.buf
	for {
		if _, err := unix.Write(r.fd, b.buf); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return linkInfo{}, fmt.Errorf("write to the kernel: %w", err)
		}
	}
	return r.answers(first, ops)
}

// answers reads until the last request is answered. Others are answered if they
// fail or ask.
func (r *rtnl) answers(first uint32, ops []linkOp) (info linkInfo, failed error) {
	if cap(r.buf) < rtnlReply {
		r.buf = make([]byte, rtnlReply)
	}
	buf := r.buf[:rtnlReply]
	for {
		n, err := unix.Read(r.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return info, fmt.Errorf("read from the kernel: %w", err)
		}
		if n < unix.SizeofNlMsghdr+4 || n == rtnlReply {
			return info, driver.Errorf(errdefs.ErrInternal, "the kernel's answer has %d bytes", n)
		}
		i := binary.NativeEndian.Uint32(buf[8:]) - first
		if uint64(i) >= uint64(len(ops)) {
			continue // of an earlier packet that was not read to its end
		}
		if binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR {
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])))
			if isFine(ops[i], errno) {
				errno = 0
			}
			if errno != 0 && failed == nil {
				failed = fmt.Errorf("%T%+v: %w", ops[i], ops[i], errno)
			}
		} else {
			info = readLink(buf[unix.SizeofNlMsghdr:n])
		}
		if int(i) == len(ops)-1 {
			return info, failed
		}
	}
}

// isFine reports whether an operation that was refused so is done.
func isFine(o linkOp, errno unix.Errno) bool {
	switch o.(type) {
	case routeVia: // a further network: the first one's route stays
		return errno == unix.EEXIST
	case plainLink:
		return errno == unix.EAFNOSUPPORT
	}
	return false
}

// readLink reads an RTM_NEWLINK behind its header.
func readLink(b []byte) linkInfo {
	if len(b) < unix.SizeofIfInfomsg {
		return linkInfo{}
	}
	l := linkInfo{
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	for b = b[unix.SizeofIfInfomsg:]; len(b) >= unix.SizeofRtAttr; {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		v := b[unix.SizeofRtAttr:n]
		switch {
		case kind == unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(v)
		case kind == unix.IFLA_IFALIAS:
			l.Alias = unix.ByteSliceToString(v)
		case kind == unix.IFLA_MTU && len(v) == 4:
			l.MTU = int(binary.NativeEndian.Uint32(v))
		case kind == unix.IFLA_LINK && len(v) == 4:
			l.Peer = int(binary.NativeEndian.Uint32(v))
		case kind == unix.IFLA_MASTER && len(v) == 4:
			l.Master = int(binary.NativeEndian.Uint32(v))
		case kind == unix.IFLA_OPERSTATE && len(v) == 1:
			l.Runs = v[0] == operUp
		}
		b = b[min(align(n), len(b)):]
	}
	return l
}

const operUp = 6 // IF_OPER_UP, linux/if.h

func align(n int) int { return (n + 3) &^ 3 }

// message is a packet of requests being written.
type message struct {
	buf  []byte
	seq  uint32
	last bool // the only one whose success is told
	from int  // where the message begins
}

// begin starts a message. One that asks is answered by what it asks for.
func (b *message) begin(kind, flags uint16, asks bool) {
	b.from = len(b.buf)
	flags |= unix.NLM_F_REQUEST
	if b.last && !asks {
		flags |= unix.NLM_F_ACK
	}
	b.buf = append(b.buf, 0, 0, 0, 0) // length: end
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, b.seq)
	b.buf = append(b.buf, 0, 0, 0, 0) // port: the kernel's
}

func (b *message) end() {
	binary.NativeEndian.PutUint32(b.buf[b.from:], uint32(len(b.buf)-b.from))
}

// link is the fixed head of a message about a link; index 0 if it is named.
func (b *message) link(family uint8, index int, flags, change uint32) {
	b.buf = append(b.buf, family, 0, 0, 0)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(index))
	b.buf = binary.NativeEndian.AppendUint32(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, change)
}

func (b *message) attr(kind uint16, value []byte) {
	from := b.open(kind)
	b.buf = append(b.buf, value...)
	b.close(from)
}

func (b *message) text(kind uint16, value string) {
	from := b.open(kind)
	b.buf = append(append(b.buf, value...), 0)
	b.close(from)
}

// name says which link is meant, by its name or a further one. IFLA_ALT_IFNAME is
// for longer ones; kernels before 5.18 do not look at it where links are changed.
func (b *message) name(link string) { b.text(unix.IFLA_IFNAME, link) }

func (b *message) number(kind uint16, value uint32) {
	from := b.open(kind)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, value)
	b.close(from)
}

func (b *message) byte(kind uint16, value byte) { b.attr(kind, []byte{value}) }

// open starts an attribute; what is written until it is closed is inside.
func (b *message) open(kind uint16) (from int) {
	from = len(b.buf)
	b.buf = append(b.buf, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	return from
}

func (b *message) close(from int) {
	binary.NativeEndian.PutUint16(b.buf[from:], uint16(len(b.buf)-from))
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}
