// Package spectest is for tests that hold a table to the fields of config.json.
package spectest

import (
	"reflect"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Missing walks the specification's Go types and names the fields that covers does
// not know, as those of a newer specification. A path that it knows covers all
// fields below it.
func Missing(covers func(path string) bool) []string {
	return missing("", reflect.TypeFor[specs.Spec](), covers)
}

func missing(path string, at reflect.Type, covers func(string) bool) []string {
	if covers(path) {
		return nil
	}
	for at.Kind() == reflect.Pointer || at.Kind() == reflect.Slice {
		at = at.Elem()
	}
	if at.Kind() != reflect.Struct {
		return []string{path}
	}
	var all []string
	for i := range at.NumField() {
		name, _, _ := strings.Cut(at.Field(i).Tag.Get("json"), ",")
		all = append(all, missing(strings.TrimPrefix(path+"."+name, "."), at.Field(i).Type, covers)...)
	}
	return all
}
