package core

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// lineSeeds are lines as the log has them, and lines that nobody writes.
func lineSeeds(t interface {
	Helper()
	Fatal(args ...any)
}) []string {
	t.Helper()
	lines := []string{
		"", "{", "{}", "null", `{"seq":}`, `{"seq":1}`, `{"seq":01,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a",}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"} `,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05+02:00","noun":"container","id":"a"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02 03:04:05Z","noun":"container","id":"a"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"\u0061\"b"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"é` + "\xff" + `"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"planet","id":"a","cause":1.5}`,
		`{"seq":1e2,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}`,
		`{"seq":99999999999999999999,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}`,
		`{"seq":1, "event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}`,
		`{"event":"container.removed","seq":1,"id":"a"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a","seq":7,"ID":"b"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a","cause":3,"job":"b"}`,
		`{"seq":1,"event":"container.removed","time":"2026-01-02T03:04:05Z","noun":"container","id":"a","later":{"x":[1]}}`,
		`{"seq":1,"event":"container.later","time":"2026-01-02T03:04:05Z","noun":"container","id":"a"}`,
		`{"seq":1,"event":"job.ended","time":"2026-01-02T03:04:05Z","noun":"job","id":"a","job":"a","cause":3,"outcome":7}`,
	}
	for _, file := range []string{"testdata/samples-0.2.jsonl", "testdata/log-0.1.jsonl"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(data), "\n")...)
	}
	return lines
}

// sameAsJSON stops the test where the header that was read by hand gives another
// event, or another verdict, than plain JSON.
func sameAsJSON(t *testing.T, line string) {
	t.Helper()
	got, err := DecodeEvent([]byte(line))
	want, wantErr := decodeWhole([]byte(line))
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("%q\nis      %+v, %v\ninstead %+v, %v", line, got, err, want, wantErr)
	}
}

func TestLineSameAsJSON(t *testing.T) {
	byHand := 0
	for _, line := range lineSeeds(t) {
		sameAsJSON(t, line)
		if e, _ := cutHeader([]byte(line)); e != nil {
			byHand++
		}
	}
	if byHand < len(events) {
		t.Errorf("only %d headers were read by hand", byHand)
	}
}

// TestHeaderByHand: every event as EncodeEvent writes it is read the short way.
func TestHeaderByHand(t *testing.T) {
	for name, f := range events {
		e := f()
		*e.Head() = Header{Seq: 12, Name: name, Noun: KindJob, ID: "x", Job: "y", Cause: 3}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := cutHeader(line); got == nil || !reflect.DeepEqual(got.Head(), e.Head()) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, line := range lineSeeds(f) {
		f.Add(line)
	}
	f.Fuzz(sameAsJSON)
}
