package core

import (
	"strings"
	"testing"
)

func TestNamesAndIDs(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for id, want := range map[string]bool{
		hex: true, hex[1:]: false, hex + "0": false, strings.ToUpper(hex): false, hex[:63] + "g": false, "": false,
	} {
		if isHexID(id) != want {
			t.Errorf("isHexID(%q) = %v", id, !want)
		}
	}
	for id, want := range map[string]bool{
		"01900000-0000-7000-8000-000000000001": true,
		"01900000-0000-7000-b000-0000000000ff": true,
		"01900000-0000-4000-8000-000000000001": false, // version 4
		"01900000-0000-7000-c000-000000000001": false, // another variant
		"01900000-0000-7000-8000-00000000000":  false,
		"01900000-0000-7000-8000-00000000000G": false,
		"01900000a0000-7000-8000-000000000001": false,
		"":                                     false,
	} {
		if isUUIDv7(id) != want {
			t.Errorf("isUUIDv7(%q) = %v", id, !want)
		}
	}
	for name, want := range map[string]bool{
		"ab": true, "a.b-c_9": true, "9x": true, "a": false, ".ab": false, "-ab": false, "a b": false, "a/b": false,
		"é1": false, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false,
	} {
		if isName(name) != want {
			t.Errorf("isName(%q) = %v", name, !want)
		}
	}
}
