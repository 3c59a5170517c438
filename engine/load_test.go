package engine

import (
	"testing"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/query"
)

// A loaded engine answers queries as of the last end and queues commands; what the
// log has got back meanwhile is there when it has started.
func TestALoadedEngineAnswersBeforeItStarts(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	full := w.log
	var records []eventlog.Record
	if err := full.Read(1, func(r eventlog.Record) error {
		r.Payload = append([]byte(nil), r.Payload...)
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	short := eventlog.NewMem()
	if err := short.Restore(records[:len(records)-1]); err != nil {
		t.Fatal(err)
	}
	w.log = short
	e, err := Load(w.options())
	if err != nil {
		t.Fatal(err)
	}
	w.e = e
	before := short.Head().Seq
	if out := psFast(t, e); len(out.Containers) != 1 || out.Seq != before {
		t.Errorf("before the start: %+v", out)
	}
	if i := must[query.Info](t)(inquire[query.Info](w, query.EngineInfo, nil)); !i.Opening {
		t.Error("it does not say that it is opening")
	}
	o := w.say("container.create", create(2, "later", core.Stopped))
	if o.done || short.Head().Seq != before {
		t.Fatalf("a command was decided on before the start: %+v", o)
	}
	if err := short.Restore(records[len(records)-1:]); err != nil { // as the stream gives it back
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	w.host.restarted()
	w.settle()
	o.ok(t)
	if i := must[query.Info](t)(inquire[query.Info](w, query.EngineInfo, nil)); i.Opening || i.Containers != 2 {
		t.Errorf("after the start: %+v", i)
	}
	w.atRest()
}
