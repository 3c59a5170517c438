package conform

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"
)

// Filled is a T in which every field has a value of its own, so that a field which
// a mapping forgets, or mixes up with another one, shows.
func Filled[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return v
}

// fill gives v the nth value. A kind that it does not know is a fault of whoever
// has added such a field.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(*n), int64(*n)).UTC()))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(*n)})))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(*n)}), 24)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("value %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n) + 1<<20)
	case reflect.Uint8:
		v.SetUint(uint64(*n % 256))
	case reflect.Uint16:
		v.SetUint(uint64(*n) + 1<<10)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n) + 1<<20)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(fmt.Sprintf("key %d", *n)), reflect.ValueOf(fmt.Sprintf("value %d", *n)))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic(fmt.Sprintf("a field of type %s cannot be filled yet", v.Type())) // maybe on a server's goroutine
	}
}
