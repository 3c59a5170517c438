package execnative

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"golang.org/x/sys/unix"
)

// A run's directory, on tmpfs below the driver's Run directory, mode 0700:
//
//	intent       what was to be started; written first, whole (rename)
//	lock         held by the shim as long as it lives (flock)
//	exit         the exit record (plan.ExitRecord)
//	attach.sock  where clients reach the shim
//	hostname     bound to /etc/hostname
//
// Nothing else of a run exists before its intent, and its cgroup is gone
// before the directory is. A directory without a valid intent is of a start
// that died in its first moment; nothing belongs to it.
const (
	intentFile   = "intent"
	lockFile     = "lock"
	recordFile   = "exit"
	socketFile   = "attach.sock"
	hostnameFile = "hostname"
)

// intent is what a restarted driver must know of a run.
type intent struct {
	Container string    `json:"container"`
	Run       uint64    `json:"run"`
	Exec      string    `json:"exec,omitempty"`
	Set       setting   `json:"set,omitzero"`
	Log       string    `json:"log,omitempty"`
	Time      time.Time `json:"time"`
	BootID    string    `json:"boot_id"`
}

func (i intent) key() execdriver.Key {
	return execdriver.Key{Container: i.Container, Run: i.Run, Exec: i.Exec}
}

// setting is what a start has settled for everything that joins its run later.
type setting struct {
	Security    execdriver.Security   `json:"security,omitzero"`
	Namespaces  execdriver.Namespaces `json:"namespaces,omitzero"`
	IDMap       driver.IDMap          `json:"id_map,omitzero"`
	Ulimits     []execdriver.Ulimit   `json:"ulimits,omitempty"`
	OOMScore    int                   `json:"oom_score,omitempty"`
	Hostname    string                `json:"hostname,omitempty"`
	HostNetwork bool                  `json:"host_network,omitempty"`
	Parent      string                `json:"parent,omitempty"` // of the cgroup, where it is not the engine's
}

// settingOf is what a start settles.
func settingOf(r execdriver.Start) setting {
	return setting{
		Security: r.Security, Namespaces: r.Namespaces, IDMap: r.IDMap, Ulimits: r.Process.Ulimits,
		OOMScore: r.Process.OOMScore, Hostname: r.Hostname, Parent: r.Resources.CgroupParent, HostNetwork: r.Network.Mode == netdriver.NamespaceHost,
	}
}

// runFiles are the descriptors of a new run's directory.
type runFiles struct {
	lock, record, listen *os.File
}

// close lets go of them. The lock stays with whoever else has it.
func (f runFiles) close() {
	for _, x := range []*os.File{f.lock, f.record, f.listen} {
		if x != nil {
			x.Close()
		}
	}
}

// makeIntent makes a run's directory with its intent.
func makeIntent(dir string, in intent) error {
	text, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode intent: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	name := filepath.Join(dir, intentFile)
	err = os.WriteFile(name+".new", text, 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		os.RemoveAll(dir)
		return fmt.Errorf("write intent: %w", err)
	}
	return nil
}

// spareRun is the directory of a run that there is not yet, with all of its files but
// the intent.
type spareRun struct {
	dir      string
	files    runFiles
	hostname *os.File
}

// makeRun makes a run's directory ahead; nil if it cannot.
func (d *native) makeRun(number uint64) *spareRun {
	s := &spareRun{dir: filepath.Join(d.cfg.Run, ownName(sparePrefix, number))}
	if os.Mkdir(s.dir, 0o700) != nil {
		return nil // what is there is not ours
	}
	var err error
	if s.files, err = makeRunFiles(s.dir); err == nil {
		s.hostname, err = makeHostname(filepath.Join(s.dir, hostnameFile))
	}
	if err != nil {
		s.remove()
		return nil
	}
	return s
}

// remove removes a directory that no run has come to have.
func (s *spareRun) remove() {
	s.files.close()
	if s.hostname != nil {
		s.hostname.Close()
	}
	_ = removeRunDir(s.dir) // else the next driver does
}

// become gives the directory to a run, with the run's intent. Before that it is
// nobody's, however much is in it.
func (s *spareRun) become(dir string, in intent, hostname string) error {
	text, err := json.Marshal(in)
	if err == nil {
		_, err = s.hostname.WriteString(hostname + "\n")
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, intentFile), text, 0o600)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, s.dir, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return fmt.Errorf("name run directory: %w", err)
	}
	_ = s.hostname.Close() // it is written
	return nil
}

// makeRunFiles makes the other files of a run or an exec. After an error the
// caller removes the directory, as it may not be alone in it.
func makeRunFiles(dir string) (f runFiles, err error) {
	defer func() {
		if err != nil {
			f.close()
			f = runFiles{}
		}
	}()
	if f.lock, err = takeLock(filepath.Join(dir, lockFile), os.O_CREATE); err != nil {
		return f, err
	}
	if f.record, err = os.OpenFile(filepath.Join(dir, recordFile), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return f, fmt.Errorf("make exit record: %w", err)
	}
	if _, err := f.record.Write(make([]byte, plan.RecordSize)); err != nil {
		return f, fmt.Errorf("make exit record: %w", err)
	}
	if f.listen, err = listen(dir); err != nil {
		return f, err
	}
	return f, nil
}

// removeRunDir removes a run's directory: the lock first, so that nobody takes what
// is half removed for a damaged one, and the intent last, which tells whose it is.
func removeRunDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == nil {
		for _, name := range []string{lockFile, recordFile, socketFile, hostnameFile, intentFile} {
			_ = unix.Unlinkat(fd, name, 0) // what stays keeps the directory
		}
		unix.Close(fd)
		if err = unix.Rmdir(dir); err == nil {
			return nil
		}
	}
	return os.RemoveAll(dir)
}

// makeHostname makes a file that any user of the container may read.
func makeHostname(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make hostname: %w", err)
	}
	if err := unix.Fchmod(int(f.Fd()), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("make hostname: %w", err), f.Close())
	}
	return f, nil
}

// writeHostname writes that file.
func writeHostname(name, hostname string) error {
	f, err := makeHostname(name)
	if err != nil {
		return err
	}
	_, err = f.WriteString(hostname + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write hostname: %w", err)
	}
	return nil
}

// errLocked says that a run's shim lives.
var errLocked = errors.New("the run's shim is alive")

// takeLock takes a run's lock, which its shim holds as long as it lives.
func takeLock(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open run lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, errLocked
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("take run lock: %w", err)
	}
	return f, nil
}

// alive reports whether the run's shim lives.
func alive(dir string) (bool, error) {
	f, err := takeLock(filepath.Join(dir, lockFile), 0)
	switch {
	case errors.Is(err, errLocked):
		return true, nil
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	return false, f.Close()
}

// listen binds the attach socket. The address goes through a descriptor, so
// that a deep directory does not exceed what an address holds.
func listen(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("bind attach socket: %w", err)
	}
	defer d.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make attach socket: %w", err)
	}
	s := os.NewFile(uintptr(fd), socketFile)
	name := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile)
	if weak.Off(weak.PathSocket) {
		name = "@" + filepath.Base(dir)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if err == nil && !weak.Off(weak.PathSocket) {
		err = unix.Chmod(name, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("bind attach socket in %s: %w", dir, err)
	}
	return s, nil
}

// readIntent reads what a run was to be.
func readIntent(dir string) (intent, error) {
	var in intent
	text, err := os.ReadFile(filepath.Join(dir, intentFile))
	if err != nil {
		return in, fmt.Errorf("read intent: %w", err)
	}
	if err := json.Unmarshal(text, &in); err != nil || in.Container == "" {
		return in, driver.Errorf(errdefs.ErrDataLoss, "intent in %s is not readable: %v", dir, err)
	}
	return in, nil
}

// readRecord reads a run's exit record. One of another boot is void.
func readRecord(dir string, bootID [16]byte) (plan.ExitRecord, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return plan.ExitRecord{}, nil
	}
	if err != nil {
		return plan.ExitRecord{}, fmt.Errorf("read exit record: %w", err)
	}
	if len(b) == 0 { // the driver died between making and filling it
		return plan.ExitRecord{}, nil
	}
	r, err := plan.ParseRecord(b)
	if err == nil && r.State != plan.StateNone && r.BootID != bootID {
		return plan.ExitRecord{}, nil
	}
	return r, err
}

// groupName is a run's cgroup below the parent of all. Its execs are in it too.
func groupName(k execdriver.Key) string { return fmt.Sprintf("%s-%d", k.Container, k.Run) }

// bootID is this boot of the machine.
func bootID() ([16]byte, error) {
	var id [16]byte
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("read boot id: %w", err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("boot id %q is not a UUID", text)
	}
	return [16]byte(b), nil
}

// attachPath is where clients reach the shim of a run's directory.
func attachPath(dir string) string { return filepath.Join(dir, socketFile) }
