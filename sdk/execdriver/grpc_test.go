package execdriver

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/gantryd/gantry/sdk/conform"
)

// cross sends a message over the wire.
func cross[M proto.Message](t *testing.T, m M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out.(M)
}

// crosses holds a pair of mappings to losing nothing, of a full value and of
// an empty one.
func crosses[T any, M proto.Message](t *testing.T, to func(T) M, from func(M) T, keep func(*T)) {
	t.Helper()
	full := conform.Filled[T]()
	var empty T
	if keep != nil {
		keep(&full)
	}
	for _, v := range []T{full, empty} {
		if got := from(cross(t, to(v))); !reflect.DeepEqual(got, v) {
			t.Errorf("%T\n got %+v\nwant %+v", v, got, v)
		}
	}
}

func TestEverythingCrosses(t *testing.T) {
	// A start's own key has no exec.
	crosses(t, startToProto, startFromProto, func(s *Start) { s.Exec = "" })
	crosses(t, exitToProto, exitFromProto, nil)
	crosses(t, copyToProto, copyFromProto, nil)
	crosses(t, resourcesToProto, resourcesFromProto, nil)
	crosses(t, processToProto, processFromProto, nil)
	crosses(t, stdioToProto, stdioFromProto, nil)
	s := conform.Filled[Stats]()
	if got := statsFromProto(cross(t, statsToProto(&s))); !reflect.DeepEqual(got, s) {
		t.Errorf("stats\n got %+v\nwant %+v", got, s)
	}
}
