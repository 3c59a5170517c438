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

// TestLentHostname: who shares the names or the network of another one has its name.
func TestLentHostname(t *testing.T) {
	lender, borrower := ContainerID(strings.Repeat("a", 64)), ContainerID(strings.Repeat("b", 64))
	for modes, want := range map[string]string{
		" ": "bbbbbbbbbbbb", "host host": "bbbbbbbbbbbb", " web": "bbbbbbbbbbbb",
		"container:A ": "box", " container:A": "box", "host container:A": "box", " container:C": "bbbbbbbbbbbb",
	} {
		c, s := Container{ID: borrower, Spec: &Spec{}}, NewState()
		uts, network, _ := strings.Cut(strings.ReplaceAll(modes, "A", string(lender)), " ")
		c.Spec.Security.UTS, c.Spec.Network.Network = uts, network
		s.Containers[lender] = &Container{ID: lender, Spec: &Spec{Network: NetworkSpec{Hostname: "box"}}}
		if got := c.lentHostname(s); got != want {
			t.Errorf("%q: %s, want %s", modes, got, want)
		}
	}
}
