package stdio

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"syscall"
	"testing"
	"time"
)

func TestFramesComeBack(t *testing.T) {
	var b bytes.Buffer
	sent := []Frame{
		Hello{Stdout: true, Stdin: true, Lossless: true}.Frame(),
		{FrameStdout, []byte("hello")},
		{FrameStdinEOF, []byte{}},
		{FrameStderr, bytes.Repeat([]byte{7}, MaxFrame)},
	}
	for _, f := range sent {
		if err := WriteFrame(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 8)
	for i, want := range sent {
		got, err := ReadFrame(&b, buf)
		if err != nil || got.Type != want.Type || !bytes.Equal(got.Payload, want.Payload) {
			t.Fatalf("frame %d: type %d, %d bytes, %v", i, got.Type, len(got.Payload), err)
		}
	}
	if _, err := ReadFrame(&b, buf); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

func TestFrameBounds(t *testing.T) {
	if err := WriteFrame(io.Discard, Frame{FrameStdin, make([]byte, MaxFrame+1)}); err == nil {
		t.Error("a frame above the bound was written")
	}
	if _, err := ReadFrame(bytes.NewReader([]byte{16, 1, 0, 1, 0}), nil); err == nil {
		t.Error("a frame above the bound was read")
	}
	for cut := 1; cut < 8; cut++ {
		whole := []byte{16, 0, 0, 4, 'a', 'b', 'c', 'd'}
		if _, err := ReadFrame(bytes.NewReader(whole[:cut]), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func TestPayloadsComeBack(t *testing.T) {
	for bits := range 64 {
		h := Hello{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0, bits&16 != 0, bits&32 != 0}
		if got, err := ParseHello(h.Frame().Payload); err != nil || got != h {
			t.Errorf("%+v came back as %+v, %v", h, got, err)
		}
	}
	l := Lost{Stderr, 1 << 40, 1<<40 + 9}
	if got, err := ParseLost(l.Frame().Payload); err != nil || got != l {
		t.Errorf("%+v came back as %+v, %v", l, got, err)
	}
	s := State{1, StateRunning, 4711, 4710, 1 << 50}
	if got, err := ParseState(s.Frame().Payload); err != nil || got != s {
		t.Errorf("%+v came back as %+v, %v", s, got, err)
	}
	e := Exit{Code: 137, Signal: 9, OOM: true, Guessed: true, Time: time.Unix(5, 6), Stage: 9, Op: 89, Index: 12, Errno: syscall.ENOENT}
	if got, err := ParseExit(e.Frame().Payload); err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("%+v came back as %+v, %v", e, got, err)
	}
	z := Size{24, 80}
	if got, err := ParseSize(z.Frame().Payload); err != nil || got != z {
		t.Errorf("%+v came back as %+v, %v", z, got, err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{1, 0, 0, 4, 1, 0, 0, 3, 20, 0, 0, 24})
	f.Add([]byte{16, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			fr, err := ReadFrame(r, nil)
			if err != nil {
				return
			}
			if len(fr.Payload) > MaxFrame {
				t.Fatalf("payload of %d bytes", len(fr.Payload))
			}
			ParseHello(fr.Payload)
			ParseLost(fr.Payload)
			ParseState(fr.Payload)
			ParseExit(fr.Payload)
			ParseSize(fr.Payload)
		}
	})
}
