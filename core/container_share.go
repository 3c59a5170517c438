package core

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// sharedWith is the container that a mode "container:ID" names.
func sharedWith(mode string) (ContainerID, bool) {
	id, ok := strings.CutPrefix(mode, "container:")
	return ContainerID(id), ok
}

// sharedModes are the places of a specification that may name another container.
func (sp *Spec) sharedModes() [4]struct{ what, mode string } {
	return [4]struct{ what, mode string }{
		{"network", sp.Network.Network}, {"pid", sp.Security.PID}, {"ipc", sp.Security.IPC}, {"uts", sp.Security.UTS},
	}
}

// sharesWith lists the containers whose namespaces sp shares, sorted.
func (sp *Spec) sharesWith() []ContainerID {
	var ids []ContainerID
	for _, m := range sp.sharedModes() {
		if id, ok := sharedWith(m.mode); ok && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// checkShares refuses to share with what is not there, or cannot be shared with.
func (s *State) checkShares(self ContainerID, sp *Spec) error {
	for _, m := range sp.sharedModes() {
		id, ok := sharedWith(m.mode)
		if !ok {
			continue
		}
		k := s.Containers[id]
		switch {
		case id == self:
			return refuse(errdefs.ErrInvalidArgument, "a container cannot share the %s namespace of itself", m.what)
		case k == nil || k.Want == Removed:
			return notFound("container", string(id))
		case sp.Security.UserNS == "private":
			return refuse(errdefs.ErrInvalidArgument,
				"a container with a user namespace of its own cannot share the %s namespace of container %s", m.what, k.Name)
		}
		switch theirs := k.Spec; m.what {
		case "network":
			if _, chained := sharedWith(theirs.Network.Network); chained {
				return refuse(errdefs.ErrInvalidArgument,
					"container %s shares the network of another one itself: name that one", k.Name)
			}
		case "ipc":
			if theirs.Security.IPC != "shareable" && theirs.Security.IPC != "host" {
				return refuse(errdefs.ErrFailedPrecondition,
					"the IPC namespace of container %s cannot be shared: create that container with --ipc shareable", k.Name)
			}
		}
	}
	return nil
}

// sharesReady refuses a start whose shared containers do not run.
func (s *State) sharesReady(sp *Spec) error {
	for _, m := range sp.sharedModes() {
		id, ok := sharedWith(m.mode)
		if !ok {
			continue
		}
		switch k := s.Containers[id]; {
		case k == nil:
			return refuse(errdefs.ErrFailedPrecondition, "container %.12s, whose %s namespace is shared, is gone: make this one anew", id, m.what)
		case k.Status() == "restarting":
			return refuse(errdefs.ErrFailedPrecondition, "container %s, whose %s namespace is shared, is restarting: wait until it runs", k.Name, m.what)
		case !k.Running():
			return refuse(errdefs.ErrFailedPrecondition, "container %s, whose %s namespace is shared, is not running: start it first", k.Name, m.what)
		}
	}
	return nil
}

// shares names the runs that a start shares namespaces with, and the network that
// it is put in. It says no while one of them is still to come. One that will not
// come is named without a process: the driver refuses it by name.
func (c *Container) shares(s *State) (Shares, Endpoint, bool) {
	sh, endpoint := Shares{}, c.endpoint()
	for _, m := range c.Spec.sharedModes() {
		id, ok := sharedWith(m.mode)
		if !ok {
			continue
		}
		key := &RunKey{Container: id}
		switch m.what {
		case "network":
			sh.Network = key
		case "pid":
			sh.PID = key
		case "ipc":
			sh.IPC = key
		case "uts":
			sh.UTS = key
		}
		k := s.Containers[id]
		switch {
		case k == nil:
		case k.Running():
			key.Run, key.PID = k.Process.Run, k.Process.PID
			if m.what == "network" {
				endpoint = k.endpoint()
			}
		case k.Want == Running:
			return sh, endpoint, false
		}
	}
	if sh.Network != nil && endpoint.Namespace.Mode != "path" && endpoint.Namespace.Mode != "host" {
		endpoint.Namespace = Namespace{Mode: "container"} // made by the exec driver: found by its process
	}
	return sh, endpoint, true
}

// lentHostname is the name of the container whose names or network are shared: as
// with Docker the hosts file, which is its own too, knows it by that. Else the
// container's own.
func (c *Container) lentHostname(s *State) string {
	for _, mode := range []string{c.Spec.Security.UTS, c.Spec.Network.Network} {
		if id, ok := sharedWith(mode); ok && s.Containers[id] != nil {
			return s.Containers[id].hostname()
		}
	}
	return c.hostname()
}

// noteSharer keeps the index of who shares with whom.
func (s *State) noteSharer(c *Container) {
	for _, id := range c.Spec.sharesWith() {
		all := append(slices.Clone(s.sharers[id]), c.ID)
		slices.Sort(all)
		s.sharers[id] = all
	}
}

func (s *State) forgetSharer(c *Container) {
	for _, id := range c.Spec.sharesWith() {
		s.sharers[id] = slices.DeleteFunc(slices.Clone(s.sharers[id]), func(k ContainerID) bool { return k == c.ID })
		if len(s.sharers[id]) == 0 {
			delete(s.sharers, id)
		}
	}
}

// sharersOf are the containers whose starts wait for one.
func (s *State) sharersOf(id ContainerID) []Noun {
	var nouns []Noun
	for _, k := range s.sharers[id] {
		nouns = append(nouns, k.noun())
	}
	return nouns
}
