package core

import (
	"fmt"
	"strings"
	"testing"
)

// TestHostNames: the name with its domain stands first in the hosts file.
func TestHostNames(t *testing.T) {
	for in, want := range map[string]string{
		" ": "0123456789ab [web]", "box ": "box [web]", "box example.org": "box.example.org [box web]", "box.example.org ": "box.example.org [box web]",
		" example.org": "0123456789ab.example.org [0123456789ab web]",
	} {
		c := Container{ID: ContainerID(strings.Repeat("0123456789abcdef", 4)), Name: "web", Spec: &Spec{}}
		c.Spec.Network.Hostname, c.Spec.Network.Domain, _ = strings.Cut(in, " ")
		host, others := c.hostNames()
		if got := fmt.Sprint(host, " ", others); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
