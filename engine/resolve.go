package engine

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

func resolve(s *core.State, in query.ResolveIn) (any, error) {
	var first error
	for _, kind := range []string{core.KindContainer, core.KindImage, core.KindNetwork, core.KindDriver} {
		if in.Kind != "" && in.Kind != kind || in.Kind == "" && kind == core.KindDriver {
			continue
		}
		r, err := resolveOne(s, kind, in.Ref)
		if err == nil || !errdefs.IsNotFound(err) {
			r.Seq = s.Seq
			return r, err
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errclass.Errorf(errdefs.ErrInvalidArgument, "nothing of the kind %q has a name", in.Kind)
	}
	return nil, first
}

func resolveOne(s *core.State, kind, ref string) (query.Resolved, error) {
	r := query.Resolved{Kind: kind}
	switch kind {
	case core.KindContainer:
		c, err := findContainer(s, ref)
		if err != nil {
			return r, err
		}
		r.ID, r.Name = string(c.ID), c.Name
	case core.KindImage:
		i, err := findImage(s, ref)
		if err != nil {
			return r, err
		}
		r.ID = string(i.ID)
		if len(i.Names) > 0 {
			r.Name = i.Names[0]
		}
	case core.KindNetwork:
		n, err := findNetwork(s, ref)
		if err != nil {
			return r, err
		}
		r.ID, r.Name = string(n.ID), n.Name
	case core.KindDriver:
		id, err := findDriver(s, ref)
		if err != nil {
			return r, err
		}
		r.ID, r.Name = id, id
	}
	return r, nil
}

func findContainer(s *core.State, ref string) (*core.Container, error) {
	c, err := s.FindContainer(ref)
	if errdefs.IsNotFound(err) {
		if gone := leaving(s, ref); gone != nil {
			return gone, nil
		}
		var names []string
		for _, k := range s.Containers {
			if k.Want != core.Removed {
				names = append(names, k.Name)
			}
		}
		err = hinted(err, ref, names)
	}
	return c, err
}

// leaving is the container that had the name until its removal was wanted, as long
// as something of it is still to be given back: the name itself is free already. Of
// several it is the newest.
func leaving(s *core.State, name string) *core.Container {
	var last *core.Container
	for _, c := range s.Containers {
		if c.Name == name && c.Want == core.Removed && (last == nil || last.Created.Before(c.Created)) {
			last = c
		}
	}
	return last
}

func findImage(s *core.State, ref string) (*core.Image, error) {
	i, err := s.FindImage(ref)
	if errdefs.IsNotFound(err) && ref != "" {
		if full, err := s.FindImage(fullReference(ref)); err == nil {
			return full, nil
		}
		var names []string
		for _, k := range s.Images {
			for _, name := range k.Names {
				names = append(names, familiar(name))
			}
		}
		err = hinted(err, familiar(ref), names)
	}
	return i, err
}

// familiar is a reference as people type it: without what fullReference adds.
func familiar(ref string) string { return strings.TrimSuffix(core.FamiliarImage(ref), ":latest") }

// fullReference is a short image name in full, as people are used to it: docker.io
// and library/ in front, :latest behind.
func fullReference(ref string) string {
	host, _, ok := strings.Cut(ref, "/")
	switch {
	case !ok:
		ref = "docker.io/library/" + ref
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		ref = "docker.io/" + ref
	}
	if last := ref[strings.LastIndexByte(ref, '/')+1:]; !strings.ContainsAny(last, ":@") {
		ref += ":latest"
	}
	return ref
}

func findNetwork(s *core.State, ref string) (*core.Network, error) {
	n, err := s.FindNetwork(ref)
	if errdefs.IsNotFound(err) {
		var names []string
		for _, k := range s.Networks {
			if k.Want != core.Removed {
				names = append(names, k.Name)
			}
		}
		err = hinted(err, ref, names)
	}
	return n, err
}

// hinted adds the nearest right name to an error, if one is near.
func hinted(err error, ref string, names []string) error {
	if name := nearest(ref, names); name != "" {
		return errclass.WithHint(err, "did you mean "+name+"?")
	}
	return err
}

// nearest is the name with the fewest edits from ref, at most a third of its
// length; of several the first in order.
func nearest(ref string, names []string) string {
	slices.Sort(names)
	best, at := "", len(ref)/3+1
	for _, name := range names {
		if n := edits(strings.ToLower(ref), strings.ToLower(name), at); n < at || n == at && best == "" {
			best, at = name, n
		}
	}
	return best
}

// edits is the Levenshtein distance, or more than limit as soon as that is clear.
func edits(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for k := range row {
		row[k] = k
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for k := range len(b) {
			cost := diagonal
			if a[i] != b[k] {
				cost = 1 + min(diagonal, row[k], row[k+1])
			}
			diagonal, row[k+1] = row[k+1], cost
		}
	}
	return row[len(b)]
}
