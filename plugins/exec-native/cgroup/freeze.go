package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Bounds of freezing.
const (
	freezeTimeout = 10 * time.Second      // for all processes to stop; a process in D state may never
	killFreeze    = 20 * time.Millisecond // the same before killing: what does not stop is killed running
	thawEvery     = 50                    // rounds after which version 1 is thawed once: see freezeV1
)

// freezer finds the hierarchy that freezes; NotImplemented where none does.
func (p *Parent) freezer(name string) (dir, error) {
	for _, d := range p.dirs {
		if d.Has("freezer") {
			return d, nil
		}
	}
	if d, ok := p.unified(); ok { // cgroup.freeze is of Linux 5.2
		return d, nil
	}
	return dir{}, errclass.Errorf(errdefs.ErrNotImplemented, "freeze cgroup %s: no freezer", filepath.Join(p.path, name))
}

// Freeze stops everything in the group and waits until it has stopped. After an
// error all runs on. A group that is not there is NotFound.
//
// Unavailable: a process does not stop, in uninterruptible sleep as a rule.
func (g *Group) Freeze(ctx context.Context) error {
	if err := g.check(); err != nil {
		return err
	}
	d, err := g.p.freezer(g.name)
	if err != nil {
		return err
	}
	if _, err := g.others(); err != nil {
		return fmt.Errorf("freeze cgroup %s: %w", g.full(), err)
	}
	err = g.freeze(ctx, d, freezeTimeout)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return errclass.Errorf(errdefs.ErrNotFound, "freeze cgroup %s: %w", g.full(), err)
	}
	if err != nil {
		err = fmt.Errorf("freeze cgroup %s: %w", g.full(), err)
		if thawErr := g.Thaw(); thawErr != nil {
			err = errors.Join(err, thawErr)
		}
	}
	return err
}

// freeze asks for it and waits.
func (g *Group) freeze(ctx context.Context, d dir, length time.Duration) error {
	wait := firstWait
	end := time.Now().Add(length)
	for round := 1; ; round++ {
		if round == 1 || !d.Unified {
			if err := g.setFrozen(d, true); err != nil {
				return err
			}
		}
		if stopped, err := g.stopped(d); err != nil || stopped {
			return err
		}
		if !d.Unified && round%thawEvery == 0 {
			// A process that was forking or being traced may be stuck half way
			// (FREEZING for ever); a thaw lets it come out (freezer-subsystem.rst).
			if err := g.setFrozen(d, false); err != nil {
				return err
			}
		}
		if time.Now().After(end) {
			pids, _ := g.Pids()
			return errclass.Errorf(errdefs.ErrUnavailable, "not all processes stop: %s", strings.Join(describe(pids), ", "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			wait = min(2*wait, longestWait/10)
		}
	}
}

// setFrozen writes the wish.
func (g *Group) setFrozen(d dir, frozen bool) error {
	file, value := "freezer.state", "THAWED"
	if d.Unified {
		file, value = "cgroup.freeze", "0"
	}
	if frozen {
		value = "FROZEN"
		if d.Unified {
			value = "1"
		}
	}
	return writeAt(int(d.f.Fd()), g.name+"/"+file, value)
}

// stopped reports whether all processes have stopped.
func (g *Group) stopped(d dir) (bool, error) {
	if !d.Unified {
		text, err := readAt(int(d.f.Fd()), g.name+"/freezer.state")
		return strings.TrimSpace(text) == "FROZEN", err
	}
	text, err := readAt(int(d.f.Fd()), g.name+"/cgroup.events")
	line, _ := lineOf(text, "frozen")
	return line == "1", err
}

// Thaw lets everything in the group go on. A group that is not there, or not
// frozen, is fine.
func (g *Group) Thaw() error {
	if err := g.check(); err != nil {
		return err
	}
	d, err := g.p.freezer(g.name)
	if err != nil {
		return err
	}
	if err := g.setFrozen(d, false); err != nil && !isGone(err) {
		return fmt.Errorf("thaw cgroup %s: %w", g.full(), err)
	}
	return nil
}

// Frozen reports whether the group is stopped, or about to be: by itself or by
// a group above it.
func (g *Group) Frozen() (bool, error) {
	if err := g.check(); err != nil {
		return false, err
	}
	d, err := g.p.freezer(g.name)
	if err != nil {
		return false, nil // what cannot freeze is not frozen
	}
	frozen, err := isFrozen(d, g.name)
	if err != nil {
		return false, fmt.Errorf("look at freezer of cgroup %s: %w", g.full(), err)
	}
	return frozen, nil
}

// isFrozen looks at one directory. One that is not there, or has no freezer, is
// not frozen.
func isFrozen(d dir, name string) (bool, error) {
	at := int(d.f.Fd())
	file := "freezer.state"
	switch {
	case d.Unified:
		file = "cgroup.events"
	case !d.Has("freezer"):
		return false, nil
	}
	text, err := readAt(at, filepath.Join(name, file))
	if isGone(err) {
		return false, nil
	}
	if !d.Unified || err != nil {
		return err == nil && strings.TrimSpace(text) != "THAWED", err
	}
	if line, _ := lineOf(text, "frozen"); line == "1" {
		return true, nil
	}
	own, err := readAt(at, filepath.Join(name, "cgroup.freeze")) // asked for, not all have stopped yet
	if isGone(err) {
		return false, nil
	}
	return strings.TrimSpace(own) == "1", err
}

// isGone reports whether an error says that a group is not there.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }
