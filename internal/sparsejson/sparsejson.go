// Package sparsejson encodes values as encoding/json does, byte for byte, without
// learning their types first.
//
// encoding/json builds an encoder for each type that a value could hold, down to the
// last field of what is a nil pointer. That is right for who encodes often. A program
// that encodes one command of two hundred fields, of which it sets five, and ends,
// spends half a millisecond on it; this package looks only at what is there.
package sparsejson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Marshal encodes v.
func Marshal(v any) ([]byte, error) {
	return appendValue(make([]byte, 0, 512), reflect.ValueOf(v))
}

// appendValue appends v. What has its own form, and what is rare, is left to encoding/json.
func appendValue(b []byte, v reflect.Value) ([]byte, error) {
	if !v.IsValid() {
		return append(b, "null"...), nil
	}
	if hasOwnForm(v) {
		return appendOther(b, v)
	}
	switch v.Kind() {
	case reflect.String:
		return appendString(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(b, "null"...), nil
		}
		return appendValue(b, v.Elem())
	case reflect.Slice, reflect.Array:
		return appendList(b, v)
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Struct:
		b, _, err := appendFields(append(b, '{'), v, true)
		return append(b, '}'), err
	}
	return appendOther(b, v)
}

// hasOwnForm reports whether the type says itself how it is encoded, also by a
// method of its pointer.
func hasOwnForm(v reflect.Value) bool {
	t := v.Type()
	if t.NumMethod() == 0 && (t.PkgPath() == "" || t.Kind() == reflect.Interface) {
		return false
	}
	marshaler, texter := reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()
	if t.Implements(marshaler) || t.Implements(texter) {
		return true
	}
	p := reflect.PointerTo(t)
	return v.CanAddr() && (p.Implements(marshaler) || p.Implements(texter))
}

func appendOther(b []byte, v reflect.Value) ([]byte, error) {
	if v.CanAddr() && v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface {
		v = v.Addr() // a method of the pointer holds only then
	}
	other, err := json.Marshal(v.Interface())
	return append(b, other...), err
}

// appendString appends s; only what must be written otherwise is left to encoding/json.
func appendString(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || strings.IndexByte(`"\<>&`, c) >= 0 {
			other, err := json.Marshal(s)
			return append(b, other...), err
		}
	}
	return append(append(append(b, '"'), s...), '"'), nil
}

func appendList(b []byte, v reflect.Value) ([]byte, error) {
	if v.Kind() == reflect.Slice && v.IsNil() {
		return append(b, "null"...), nil
	}
	if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
		return appendOther(b, v) // base64
	}
	b = append(b, '[')
	var err error
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, v.Index(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, v reflect.Value) ([]byte, error) {
	if v.IsNil() {
		return append(b, "null"...), nil
	}
	if k := v.Type().Key(); k.Kind() != reflect.String || k.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return appendOther(b, v)
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	b = append(b, '{')
	var err error
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendString(b, k.String()); err != nil {
			return b, err
		}
		if b, err = appendValue(append(b, ':'), v.MapIndex(k)); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// appendFields appends the fields of a struct that are not left out, and says
// whether the next one is still the first. Names that an embedded struct and its
// surroundings both have are not told apart as encoding/json does: its tests find them.
func appendFields(b []byte, v reflect.Value, first bool) ([]byte, bool, error) {
	t := v.Type()
	for i := range v.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		field := v.Field(i)
		var err error
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			if b, first, err = appendFields(b, field, first); err != nil {
				return b, first, err
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if leftOut(field, options) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if b, err = appendString(b, name); err != nil {
			return b, first, err
		}
		if b, err = appendValue(append(b, ':'), field); err != nil {
			return b, first, err
		}
	}
	return b, first, nil
}

// leftOut is what omitempty and omitzero say of a field.
func leftOut(v reflect.Value, options string) bool {
	for len(options) > 0 {
		var option string
		option, options, _ = strings.Cut(options, ",")
		switch {
		case option == "omitempty" && isEmpty(v), option == "omitzero" && isZero(v):
			return true
		}
	}
	return false
}

// isEmpty is encoding/json's word for it: a struct never is.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// isZero asks the value's own IsZero, if it has one.
func isZero(v reflect.Value) bool {
	if v.Type().NumMethod() > 0 && (v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface || !v.IsNil()) {
		if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
			return z.IsZero()
		}
	}
	return v.IsZero()
}
