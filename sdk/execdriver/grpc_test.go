package execdriver

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// fill gives every field of a value something that is not its zero value and
// differs from the others, so that one left out of the mapping, or mapped to
// another's place, is seen.
func fill(v reflect.Value, n *int64) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000+*n, *n).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{fmt.Sprint("key", *n): fmt.Sprint("value", *n)}))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(*n)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n % 256))
	default:
		panic(v.Type().String())
	}
}

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
	var full, empty T
	n := int64(0)
	fill(reflect.ValueOf(&full).Elem(), &n)
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
	var s Stats
	n := int64(0)
	fill(reflect.ValueOf(&s).Elem(), &n)
	if got := statsFromProto(cross(t, statsToProto(&s))); !reflect.DeepEqual(got, s) {
		t.Errorf("stats\n got %+v\nwant %+v", got, s)
	}
}
