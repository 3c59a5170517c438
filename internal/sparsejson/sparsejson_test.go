package sparsejson_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/sparsejson"
)

// fill sets about half of what can be set.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if depth > 7 || !v.CanSet() || r.IntN(2) == 0 {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()
		return
	case *netip.Prefix:
		*p = netip.MustParsePrefix("10.1.0.0/16")
		return
	case *netip.Addr:
		*p = netip.MustParseAddr("10.1.0.7")
		return
	case *json.RawMessage:
		*p = json.RawMessage(`{"a": [1,  "<&>"]}`)
		return
	}
	switch v.Kind() {
	case reflect.String:
		words := []string{"", "plain", "a \"quote\"", "back\\slash", "<&>", "tab\t\x00", "Grüße", "\u2028", "bad\xff", "\x7f"}
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(200) - 100))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(r.IntN(200)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(r.Float64() * 1e7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, k, depth)
			fill(r, e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth+1)
		}
	}
}

// What the command line encodes comes out as encoding/json would have it.
func TestItIsEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, make := range []func() any{
		func() any { return new(core.CreateContainer) }, func() any { return new(core.ExecContainer) },
		func() any { return new(core.UpdateContainer) }, func() any { return new(core.StopContainer) },
		func() any { return new(core.NewNetwork) }, func() any { return new(core.LoadImage) },
		func() any { return new(core.Spec) }, func() any { return new(core.ContainerCreated) },
		func() any { return new(query.CommandIn) }, func() any { return new(query.QueryIn) },
		func() any { return new(query.LogsIn) }, func() any { return new(query.ContainerDetail) },
		func() any { return new(map[string]any) }, func() any { return new([]*core.MountSpec) },
	} {
		for n := range 300 {
			v := make()
			if n > 0 { // the first one is empty
				for reflect.ValueOf(v).Elem().IsZero() {
					fill(r, reflect.ValueOf(v).Elem(), 0)
					if reflect.TypeOf(v).Elem().Kind() != reflect.Struct {
						break
					}
				}
			}
			want, wantErr := json.Marshal(v)
			got, err := sparsejson.Marshal(v)
			if (err == nil) != (wantErr == nil) || err == nil && string(got) != string(want) {
				t.Fatalf("%T:\ngot  %s, %v\nwant %s, %v", v, got, err, want, wantErr)
			}
		}
	}
	if got, err := sparsejson.Marshal(nil); string(got) != "null" || err != nil {
		t.Errorf("nil is %s, %v", got, err)
	}
}
