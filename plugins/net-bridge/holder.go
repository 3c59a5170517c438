package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// Operations and sizes of the holder's protocol (holder/holder.c).
const (
	holderVersion = 1

	opHello = 1
	opMake  = 2
	opPut   = 3
	opGet   = 4
	opList  = 5
	opDrop  = 6
	opQuit  = 7

	replyHead  = 16
	listedHead = 16
	replyMax   = 65536
	callTime   = 15 * time.Second // longer than the holder's own bound for a user namespace
)

// errNoHolder says that no holder runs: nothing is held.
var errNoHolder = errors.New("no namespace holder runs")

// errNoAnswer says that the holder did not answer in time.
var errNoAnswer = driver.Errorf(errdefs.ErrUnavailable, "no answer")

// holder is the client of the process that keeps the namespaces.
type holder struct {
	start    func() error  // starts the process; returns when it can be dialled
	path     string        // its socket, short enough for an address
	patience time.Duration // how long an answer is waited for: callTime, but for tests

	mu   sync.Mutex // guards what follows and orders the calls
	conn int        // the socket; 0: none, since that is never one
	pid  int
}

// kept is a namespace in the holder.
type kept struct {
	Key   string
	PID   int // of the holder
	N     uint32
	Inode uint64
}

// path is where the namespace can be opened.
func (k kept) path() string { return fmt.Sprintf("/proc/%d/fd/%d", k.PID, k.N) }

type request struct {
	op  byte
	arg uint32
	key string
	fd  int // -1 for none
}

type reply struct {
	n    uint32
	ino  uint64
	rest []byte
	fd   int // -1 for none; the caller's to close
}

// makeNamespace returns a new network namespace with loopback up, owned by the
// user namespace behind user, or by the machine's if user is -1.
func (h *holder) makeNamespace(user int) (int, error) {
	r, _, err := h.call(request{op: opMake, fd: user}, true)
	if err != nil {
		return -1, fmt.Errorf("make a network namespace: %w", err)
	}
	return r.fd, nil
}

// put keeps the namespace behind fd under a key.
func (h *holder) put(key string, fd int) (kept, error) {
	r, pid, err := h.call(request{op: opPut, key: key, fd: fd}, true)
	if err != nil {
		return kept{}, fmt.Errorf("keep the network namespace: %w", err)
	}
	return kept{Key: key, PID: pid, N: r.n, Inode: r.ino}, nil
}

// get finds the namespace of a key.
func (h *holder) get(key string) (kept, bool, error) {
	r, pid, err := h.call(request{op: opGet, key: key, fd: -1}, false)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, errNoHolder) {
		return kept{}, false, nil
	}
	if err != nil {
		return kept{}, false, fmt.Errorf("find the network namespace: %w", err)
	}
	_ = unix.Close(r.fd)
	return kept{Key: key, PID: pid, N: r.n, Inode: r.ino}, true, nil
}

// open returns a descriptor of the namespace with this inode that is kept for a run.
// Whose it is matters: a free inode is the first that the kernel hands out again.
func (h *holder) open(run netdriver.EndpointKey, inode uint64) (int, error) {
	all, err := h.list()
	if err != nil {
		return -1, err
	}
	for _, k := range all {
		key, ok := parseHolderKey(k.Key)
		if ok && k.Inode == inode && key.Container == run.Container && key.Run == run.Run {
			return h.openKey(k.Key)
		}
	}
	return -1, driver.Errorf(errdefs.ErrFailedPrecondition, "network namespace %d is not held for this run", inode)
}

// openKey returns a descriptor of the namespace kept under a key.
func (h *holder) openKey(key string) (int, error) {
	r, _, err := h.call(request{op: opGet, key: key, fd: -1}, false)
	if err != nil {
		return -1, fmt.Errorf("open the network namespace: %w", err)
	}
	return r.fd, nil
}

// drop forgets a key and tells how many others have the same namespace.
func (h *holder) drop(key string) (others int, err error) {
	r, _, err := h.call(request{op: opDrop, key: key, fd: -1}, false)
	if errors.Is(err, errNoHolder) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("drop the network namespace: %w", err)
	}
	return int(r.n), nil
}

// quit ends the holder if it holds nothing.
func (h *holder) quit() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _, err := h.callLocked(request{op: opQuit, fd: -1}, false)
	if errors.Is(err, errNoHolder) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	if err == nil {
		h.hangUp()
	}
	return err
}

// close ends the connection; the holder stays.
func (h *holder) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangUp()
}

// hangUp closes the connection; mu is held.
func (h *holder) hangUp() {
	if h.conn != 0 {
		_ = unix.Close(h.conn)
		h.conn = 0
	}
}

// list returns all that is kept. Only this process changes it, so the pages
// fit together while mu is held.
func (h *holder) list() ([]kept, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []kept
	for from := uint32(0); ; {
		r, pid, err := h.callLocked(request{op: opList, arg: from, fd: -1}, false)
		if errors.Is(err, errNoHolder) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list network namespaces: %w", err)
		}
		for b := r.rest; len(b) >= listedHead; {
			n := binary.NativeEndian.Uint32(b[12:])
			if uint64(n) > uint64(len(b)-listedHead) {
				return nil, driver.Errorf(errdefs.ErrInternal, "list network namespaces: a key of %d bytes in %d", n, len(b))
			}
			all = append(all, kept{
				Key: string(b[listedHead : listedHead+n]), PID: pid,
				N: binary.NativeEndian.Uint32(b[8:]), Inode: binary.NativeEndian.Uint64(b),
			})
			b = b[listedHead+n:]
		}
		if r.n <= from { // 0 at the end
			return all, nil
		}
		from = r.n
	}
}

func (h *holder) call(q request, start bool) (reply, int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.callLocked(q, start)
}

// callLocked sends a request; a connection that has broken (the holder was
// killed) is made anew once. It returns the holder's pid too.
func (h *holder) callLocked(q request, start bool) (reply, int, error) {
	for try := 0; ; try++ {
		fresh := h.conn == 0
		if fresh {
			if err := h.connect(start); err != nil {
				return reply{}, 0, err
			}
		}
		r, err := exchange(h.conn, q)
		var errno unix.Errno
		if err == nil || errors.As(err, &errno) && errno != unix.EPIPE && errno != unix.ECONNRESET {
			return r, h.pid, err
		}
		h.hangUp()
		if fresh || try > 0 || errors.Is(err, errNoAnswer) {
			return reply{}, 0, fmt.Errorf("talk to the namespace holder: %w", err)
		}
	}
}

// connect dials the holder. One that is just ending accepts and resets, so it
// is tried again until it is gone, for a bounded time. One that does not answer was
// waited for long enough.
func (h *holder) connect(start bool) error {
	var last error
	for range 100 {
		conn, err := h.dial(start)
		if err != nil {
			return err
		}
		r, err := exchange(conn, request{op: opHello, fd: -1})
		if err == nil {
			h.conn, h.pid = conn, int(r.n)
			return nil
		}
		last = err
		_ = unix.Close(conn)
		if errors.Is(err, errNoAnswer) {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("greet the namespace holder: %w", last)
}

func (h *holder) dial(start bool) (int, error) {
	conn, err := dialHolder(h.path, h.patience)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		if !start {
			return 0, errNoHolder
		}
		if err := h.start(); err != nil {
			return 0, err
		}
		conn, err = dialHolder(h.path, h.patience)
	}
	if err != nil {
		return 0, fmt.Errorf("dial the namespace holder: %w", err)
	}
	return conn, nil
}

// dialHolder makes a plain blocking socket: the holder answers within some ten
// microseconds, less than it takes to put a goroutine aside and to wake it.
func dialHolder(path string, wait time.Duration) (int, error) {
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	patience := unix.NsecToTimeval(wait.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
		unix.Connect(conn, &unix.SockaddrUnix{Name: path}))
	if err != nil {
		_ = unix.Close(conn)
		return 0, err
	}
	return conn, nil
}

// exchange is one request and its reply. An errno in it is the holder's answer.
func exchange(conn int, q request) (reply, error) {
	head := make([]byte, 8, 8+len(q.key))
	head[0], head[1] = holderVersion, q.op
	binary.NativeEndian.PutUint16(head[2:], uint16(len(q.key)))
	binary.NativeEndian.PutUint32(head[4:], q.arg)
	var rights []byte
	if q.fd >= 0 {
		rights = unix.UnixRights(q.fd)
	}
	err := uninterrupted(func() error { return unix.Sendmsg(conn, append(head, q.key...), rights, nil, unix.MSG_NOSIGNAL) })
	if err != nil {
		return reply{}, broken(err)
	}
	buf := make([]byte, replySize(q.op))
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	err = uninterrupted(func() (err error) {
		n, oobn, _, _, err = unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil || n < replyHead {
		return reply{}, broken(err)
	}
	r := reply{
		n: binary.NativeEndian.Uint32(buf[4:]), ino: binary.NativeEndian.Uint64(buf[8:]),
		rest: buf[replyHead:n], fd: receivedFD(oob[:oobn]),
	}
	if errno := binary.NativeEndian.Uint32(buf); errno != 0 {
		return r, unix.Errno(errno)
	}
	if (q.op == opMake || q.op == opGet) && r.fd < 0 {
		return r, driver.Errorf(errdefs.ErrResourceExhausted, "the holder sent no descriptor")
	}
	return r, nil
}

// uninterrupted repeats a call that a signal has interrupted.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func replySize(op byte) int {
	if op == opList {
		return replyMax
	}
	return replyHead
}

// broken keeps a lost connection apart from the errnos that the holder answers.
func broken(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return errNoAnswer
	}
	if err == nil { // it has hung up
		err = unix.ECONNRESET
	}
	return driver.Errorf(errdefs.ErrUnavailable, "%v", err)
}

func receivedFD(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1
	}
	return fds[0]
}
