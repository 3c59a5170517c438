package plan

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hosted compiles sources of the shim with gcc, a C library and its sanitizers.
func hosted(t *testing.T, out string, args ...string) {
	t.Helper()
	all := append([]string{"-DHOSTED", "-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I../shim",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", out}, args...)
	if msg, err := exec.Command("gcc", all...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
}

// every gives a plan with each kind of operation at a place where it may stand.
func every() *Plan {
	p := &Plan{}
	a := Attr{Set: 1, Clear: 2, Propagation: 4, Recursive: true}
	p.Add(StageMonitor, Monitor{Flags: 7, GateMilli: 1, DrainMs: 2, Run: 1 << 40}, ShimCgroup{0, true},
		ShimCgroup{1, false}, Lock{2}, Record{3}, Listen{4}, Log{5, "log", 1 << 20, 5, 1 << 33}, OOMCounter{6},
		Deadline{7}, LogPolicy{true, 1 << 20, 60}, Owner{1, 2})
	p.Add(StageJoin, Join{7, unix.CLONE_NEWUSER}, Unshare{unix.CLONE_NEWTIME}, ProcWrite{"timens_offsets", "boottime 1 0"})
	p.Add(StageClone, Clone{allNamespaces, 8})
	p.Add(StageParent, ProcWrite{"uid_map", "0 1 2"})
	p.Add(StageChild, Cgroup{9}, Rlimit{7, 1, 2}, User{1, 2, []uint32{3, 4, 5}, true}, Affinity{[]byte{3}},
		Scheduler{1, 2, -3, 4, 5, 6, 7}, IOPriority{0x4004}, MemoryPolicy{2, []byte{1}}, Keyring{"ring"}, Pty{24, 80})
	p.Add(StageMounts, Propagation{1 << 40}, Root{1, a}, Attach{2, "/a/b", CreateFile, a},
		Filesystem{"tmpfs", "/dev", CreateDir, 3, []Param{{ParamFlag, "a", "", 0}, {ParamString, "b", "c", 0}, {ParamFD, "d", "", 3}}},
		Bind{"/src/x", 8, 1, 1 << 40, true, 3, "/b", CreateDir, []Attr{a, a}}, Node{"/dev/null", 0o20666, 1, 3, 4, 5}, Symlink{"/l", "../x"}, SetAttr{"/", a}, Console{24, 80},
		Hook{"/bin/h", []string{"h", "x"}, []string{"A=1"}, 10, []byte(`{"pid":          }`), 7}, Pivot{})
	p.Add(StageCover, Hostname{"h"}, Domainname{"d"}, Sysctl{"net/a", "1"}, Mask{"/x", NoFD}, Mask{"/y", 1},
		ReadOnly{"/z"}, LinkUp{"lo"})
	p.Add(StageGate, Sync{3}, Gate{})
	p.Add(StageIdentity, CapBound{1 << 40}, CapSet{1, 2, 3, 4}, NoNewPrivs{}, Umask{0o22}, Personality{8}, Label{"exec", "x"},
		Chdir{"/work", true, 1, 2})
	p.Add(StageExec, Sweep{}, Seccomp{1, bytes.Repeat([]byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}, 3)},
		Exec{[]string{"/bin/a", "/b"}, []string{"a", "", "c"}, []string{"X=1"}})
	return p
}

// leaving gives a plan of the leaving mode with the kinds that only it has.
func leaving() *Plan {
	p := &Plan{}
	p.Add(StageMonitor, Leave{0, NoFD, 2, []FD{3, 4}})
	p.Add(StageClone, Clone{allNamespaces, 8})
	p.Add(StageMounts, Root{1, Attr{}}, MoveRoot{})
	p.Add(StageGate, StartGate{5})
	p.Add(StageExec, Sweep{}, Exec{[]string{"/bin/a", "/b"}, []string{"a"}, nil})
	return p
}

// hosts gives a plan with the kinds of a container in the host's mount namespace.
func hosts() *Plan {
	p := &Plan{}
	p.Add(StageMonitor, Monitor{Run: 1})
	p.Add(StageClone, Clone{unix.CLONE_NEWPID, NoFD})
	p.Add(StageMounts, RootHere{1}, Chroot{1})
	p.Add(StageGate, Gate{})
	p.Add(StageExec, Sweep{}, Exec{[]string{"/bin/a"}, []string{"a"}, nil})
	return p
}

func TestEveryKindIsInEvery(t *testing.T) {
	seen := map[Kind]bool{}
	for _, s := range slices.Concat(every().Steps, leaving().Steps, hosts().Steps) {
		seen[s.Op.Kind()] = true
	}
	for _, k := range kindNames {
		if !seen[k.kind] {
			t.Errorf("no %v among the seeds of the fuzzing", k.kind)
		}
	}
}

// TestDecoderUnderFuzzing gives the shim's decoder, built with sanitizers,
// plans with random changes for a bounded time.
func TestDecoderUnderFuzzing(t *testing.T) {
	skipShort(t)
	dir := t.TempDir()
	prog := filepath.Join(dir, "fuzz")
	hosted(t, prog, "../shim/hosted/fuzz.c", "../shim/plan.c", "../shim/payload.c")
	cmd := exec.Command(prog)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(in)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	var good [3][]byte
	for i, p := range []*Plan{every(), leaving(), hosts()} {
		if good[i], err = p.Encode(10); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range good {
		send(w, b, 10)
	}
	n := len(good) - 1
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); n++ {
		b, files := mutate(rng, good[n%len(good)])
		if send(w, b, files) != nil {
			break
		}
	}
	w.Flush()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, errs.String())
	}
	var fine, all int
	fmt.Sscanf(out.String(), "%d of %d", &fine, &all)
	if all != n+1 || fine < len(good) {
		t.Errorf("%d sent: %s", n+1, out.String())
	}
	t.Logf("%s", strings.TrimSpace(out.String()))
}

func send(w io.Writer, b []byte, files uint32) error {
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(b)))
	_, err := w.Write(append(binary.LittleEndian.AppendUint32(head, files), b...))
	return err
}

// mutate changes bits, numbers and lengths, mostly of few places, and keeps
// the header's length right in most, so that what is behind it is reached.
func mutate(rng *rand.Rand, good []byte) ([]byte, uint32) {
	b := bytes.Clone(good)
	for range 1 + rng.IntN(3) {
		at := rng.IntN(len(b))
		switch rng.IntN(6) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b[at] = byte(rng.IntN(256))
		case 2:
			at = at &^ 3
			if at+4 <= len(b) {
				binary.LittleEndian.PutUint32(b[at:], []uint32{0, 1, 7, 0x7fffffff, 0xffffffff, uint32(len(b)), 1 << 16}[rng.IntN(7)])
			}
		case 3:
			b = b[:at]
		case 4:
			b = append(b[:at], good[rng.IntN(len(good)):]...)
		case 5:
			b = append(b, make([]byte, rng.IntN(16))...)
		}
		if len(b) == 0 {
			break
		}
	}
	if len(b) >= headerBytes && rng.IntN(10) > 0 {
		copy(b, good[:8])
		binary.LittleEndian.PutUint32(b[8:], uint32(len(b)))
		copy(b[16:headerBytes], good[16:headerBytes])
	}
	return b, 10
}

// skipShort leaves out what needs no kernel of its own and takes minutes where a
// machine is translated, compiling first of all.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("tests with sanitizers take long, and are the same on every kernel: left out with -short")
	}
}

// TestUnderSanitizers runs the whole shim, compiled with address and undefined
// behaviour sanitizers, through the tests of its streams and containers.
func TestUnderSanitizers(t *testing.T) {
	skipShort(t)
	dir := t.TempDir()
	prog := filepath.Join(dir, "gantry-shim-hosted")
	sources, err := filepath.Glob("../shim/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources of the shim", err)
	}
	hosted(t, prog, append(sources, "../shim/hosted/options.c", fmt.Sprintf("-DREPORTS=%q", filepath.Join(dir, "report")))...)
	t.Setenv("GANTRY_TEST_SHIM", prog)
	for _, c := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"signal", TestExitBySignal}, {"failures", TestStartFailures}, {"gate", TestFailureTellsAttachedClient},
		{"sync", TestContinueAtSync}, {"abort", TestAbortAtSync}, {"no driver", TestLivesOnWithoutDriver},
		{"no wait", TestExitDoesNotWaitForClient}, {"vanished", TestVanishedClient},
		{"follower", TestFollowerFillsFromLog}, {"gone before", TestStdinOfVanishedClientBeforeStart},
		{"gone reader", TestStdinOfVanishedReader}, {"gone meanwhile", TestStdinOfReaderGoneMeanwhile}, {"early input", TestInputBeforeTerminal}, {"full terminal", TestEndOfFullTerminal},
		{"places", TestPlaceForDriver}, {"debugger", TestDeadProgramUnderDebugger}, {"stdin", TestStdin}, {"bad clients", TestBadClients}, {"random clients", TestRandomClients},
		{"rotation", TestLogRotates}, {"full", TestLogOnFullDisk},
		{"isolation", TestIsolation}, {"user namespace", TestUserNamespace}, {"join", TestJoin},
		{"hostile", TestHostileTargets}, {"cwd", TestWorkingDirectory}, {"terminal", TestTerminal},
		{"leaving", TestLeaving}, {"leaving failures", TestLeavingFailures}, {"start gate", TestStartGate},
		{"leaving terminal", TestLeavingTerminal}, {"kept", TestKeptDescriptors}, {"hooks", TestHooks},
		{"failing hooks", TestHooksThatFail}, {"exec", TestExecWithoutMonitor},
		{"settings", TestSettings}, {"labels", TestLabels}, {"listener", TestListener}, {"deadline", TestDeadline},
		{"non-blocking", TestNonBlockingLog}, {"stalled disk", TestStalledDisk}, {"age", TestLogRotatesByAge}, {"early", TestEarly},
	} {
		t.Run(c.name, c.f)
	}
	reports, _ := filepath.Glob(filepath.Join(dir, "report*"))
	for _, r := range reports {
		b, _ := os.ReadFile(r)
		t.Errorf("%s", b)
	}
}
