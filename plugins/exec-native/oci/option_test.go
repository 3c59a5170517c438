package oci

import (
	"slices"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestChanges: a single mount gets its attributes by one call, a tree by as few
// as keep what is of its top apart; a later word wins in either.
func TestChanges(t *testing.T) {
	const ro, noexec, atime = unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOEXEC, unix.MOUNT_ATTR__ATIME
	private := func(a plan.Attr) plan.Attr {
		a.Propagation = unix.MS_PRIVATE
		return a
	}
	for _, c := range []struct {
		words []string
		want  []plan.Attr
	}{
		{[]string{"bind"}, []plan.Attr{private(plan.Attr{})}},
		{[]string{"bind", "ro"}, []plan.Attr{private(plan.Attr{Set: ro})}},
		{[]string{"bind", "ro", "rnoexec", "slave"}, []plan.Attr{{Set: ro | noexec, Propagation: unix.MS_SLAVE}}},
		{[]string{"bind", "rro", "rw"}, []plan.Attr{private(plan.Attr{Set: ro})}}, // the tree's come after the top's
		{[]string{"bind", "noatime", "rrelatime"}, []plan.Attr{private(plan.Attr{Clear: atime})}},
		{[]string{"rbind", "ro"}, []plan.Attr{{Set: ro}, private(plan.Attr{Recursive: true})}},
		{[]string{"rbind", "rro"}, []plan.Attr{private(plan.Attr{Set: ro, Recursive: true})}},
		{[]string{"rbind", "ro", "rnoexec", "shared"}, []plan.Attr{{Set: ro}, {Set: noexec, Recursive: true}, {Propagation: unix.MS_SHARED}}},
	} {
		o, err := optionsOf(specs.Mount{Type: "bind", Options: c.words})
		if err != nil {
			t.Fatal(err)
		}
		if got := o.settled().changes(!o.tree); !slices.Equal(got, c.want) {
			t.Errorf("%v: %+v, want %+v", c.words, got, c.want)
		}
	}
}
