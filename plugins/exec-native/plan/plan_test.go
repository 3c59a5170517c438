package plan

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"syscall"
	"testing"
)

// TestEncodeRefuses lists what cannot be a plan, with a word of the reason.
func TestEncodeRefuses(t *testing.T) {
	for want, steps := range map[string][]Step{
		"descriptor 3 of 3":    {{StageMonitor, false, Lock{3}}},
		"a NUL in":             {{StageCover, false, Hostname{"a\x00b"}}},
		"at most 64":           {{StageCover, false, Hostname{strings.Repeat("h", 65)}}},
		"stage clone after":    {{StageParent, false, ProcWrite{"uid_map", "x"}}, {StageClone, false, Clone{}}},
		"filter of 9 bytes":    {{StageExec, false, Seccomp{Filter: make([]byte, 9)}}},
		"nothing to execute":   {{StageExec, false, Exec{Paths: []string{"/a"}}}},
		"65 strings":           {{StageExec, false, Exec{Paths: make([]string, 65), Args: []string{"a"}}}},
		"1025 groups":          {{StageIdentity, false, User{Groups: make([]uint32, 1025)}}},
		"65 parameters":        {{StageMounts, false, Filesystem{Params: make([]Param, 65)}}},
		"5 changes":            {{StageMounts, false, Bind{Attrs: make([]Attr, 5)}}},
		"0 files of 4096":      {{StageMonitor, false, Log{MaxBytes: 4096}}},
		"1 files of 10 bytes":  {{StageMonitor, false, Log{MaxBytes: 10, MaxFiles: 1}}},
		"65537 bytes":          {{StageMounts, false, Hook{Args: []string{"h"}, State: make([]byte, 65537)}}},
		"operation 0, symlink": {{StageMounts, false, Symlink{Path: strings.Repeat("/x", 3000)}}},
	} {
		_, err := (&Plan{Steps: steps}).Encode(3)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := (&Plan{Steps: make([]Step, MaxSteps+1)}).Encode(0); err == nil {
		t.Error("too many steps")
	}
	if _, err := (&Plan{}).Encode(MaxFiles + 1); err == nil {
		t.Error("too many files")
	}
	var env []string
	for range 40 {
		env = append(env, strings.Repeat("e", MaxString))
	}
	p := &Plan{}
	p.Add(StageExec, Exec{Paths: []string{"/a"}, Args: []string{"a"}, Env: env})
	if _, err := p.Encode(0); err == nil || !strings.Contains(err.Error(), "at most 4194304") {
		t.Errorf("too long: %v", err)
	}
}

// TestEncodedStep pins the bytes of one step: they are what an older shim
// reads.
func TestEncodedStep(t *testing.T) {
	p := &Plan{}
	p.AddOptional(StageCover, Hostname{"box"})
	b, err := p.Encode(2)
	if err != nil {
		t.Fatal(err)
	}
	want := "GPLN" + "\x01\x00" + "\x18\x00" + "\x28\x00\x00\x00" + "\x01\x00\x00\x00" + "\x02\x00\x00\x00" + "\x00\x00\x00\x00" +
		"\x32\x00" + "\x06" + "\x01" + "\x08\x00\x00\x00" + "\x03\x00\x00\x00box\x00"
	if string(b) != want {
		t.Errorf("%q", b)
	}
}

func TestRecordIsChecked(t *testing.T) {
	b := make([]byte, RecordSize)
	if r, err := ParseRecord(b); err != nil || r != (ExitRecord{}) {
		t.Errorf("zeros: %+v, %v", r, err)
	}
	le := binary.LittleEndian
	le.PutUint32(b, recordMagic)
	le.PutUint16(b[4:], 1)
	le.PutUint16(b[6:], uint16(StateExited))
	le.PutUint32(b[40:], 137)
	le.PutUint32(b[84:], crc32.ChecksumIEEE(b[:84]))
	if r, err := ParseRecord(b); err != nil || r.State != StateExited || r.Code != 137 {
		t.Errorf("%+v, %v", r, err)
	}
	for at := range b {
		b[at] ^= 4
		if _, err := ParseRecord(b); err == nil {
			t.Errorf("byte %d changed, and nobody noticed", at)
		}
		b[at] ^= 4
	}
	if _, err := ParseRecord(b[:RecordSize-1]); !errors.Is(err, errShort) {
		t.Errorf("short: %v", err)
	}
}

func TestReportErr(t *testing.T) {
	r := Report{Kind: ReportError, Stage: StageMounts, Op: KindAttach, Index: 12, Errno: syscall.ENOENT}
	if err := r.Err(); !errors.Is(err, syscall.ENOENT) || err.Error() != "attach (operation 12, mounts): no such file or directory" {
		t.Errorf("%v", err)
	}
	r.Kind = ReportExited
	if err := r.Err(); err != nil {
		t.Errorf("an exit is no failure: %v", err)
	}
}
