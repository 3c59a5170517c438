package bus

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
)

// What is peeked is what JSON says, and what looks otherwise is left to JSON.
func TestAnEventIsPeeked(t *testing.T) {
	created := &core.ContainerRemoved{Header: core.Header{
		Seq: 1 << 60, Name: "container.removed", Time: time.Unix(7, 9).UTC(), Noun: "container", ID: "c", Job: "j", Cause: 3,
	}}
	written, err := core.EncodeEvent(created)
	if err != nil {
		t.Fatal(err)
	}
	for line, peeked := range map[string]bool{
		string(written): true,
		`{"seq":5,"event":"a.b","time":"t","noun":"n","id":"i"}`:             true,
		`{"seq":5,"event":"a.b","time":"t","noun":"n","id":"","x":{"id":1}}`: true,
		`{"seq":5,"event":"a.b","time":"t","noun":"n","id":"a\"b"}`:          false,
		`{"seq":5,"event":"a\u002eb","time":"t","noun":"n","id":"i"}`:        false,
		`{"event":"a.b","seq":5,"time":"t","noun":"n","id":"i"}`:             false,
		`{"seq":5,"event":"a.b","noun":"n","id":"i"}`:                        false,
		`{ "seq":5,"event":"a.b","time":"t","noun":"n","id":"i"}`:            false,
	} {
		e, ok := peekEvent([]byte(line))
		if ok != peeked {
			t.Errorf("%s: peeked %v", line, ok)
		}
		var want struct {
			Seq  uint64 `json:"seq"`
			Name string `json:"event"`
			Noun string `json:"noun"`
			ID   string `json:"id"`
		}
		if err := json.Unmarshal([]byte(line), &want); err != nil {
			t.Fatal(err)
		}
		if e, err = EventOf([]byte(line)); err != nil || e.Seq != want.Seq || e.Name != want.Name || e.Noun != want.Noun || e.ID != want.ID {
			t.Errorf("%s: %+v, %v", line, e, err)
		}
	}
	for _, line := range []string{``, `{"seq":`, `{"seq":-1,"event":"a`, `{"seq":5,"event":"a.b","time":"t","noun":"n","id":"`} {
		if _, ok := peekEvent([]byte(line)); ok {
			t.Errorf("%q was peeked", line)
		}
		if _, err := EventOf([]byte(line)); err == nil {
			t.Errorf("%q was read", line)
		}
	}
}
