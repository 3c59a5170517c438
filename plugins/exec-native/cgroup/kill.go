package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Bounds of ending and removing a group.
const (
	killRounds   = 200                    // of version 1, against programs that fork on
	killBatch    = 256                    // processes held by descriptor at a time
	emptyTimeout = 2 * time.Second        // for killed processes to be gone
	firstWait    = 200 * time.Microsecond // doubles
	longestWait  = 50 * time.Millisecond
)

// Kill sends SIGKILL to everything in the group, frozen or not, and does not
// wait for it to be gone. The group must not be one that this process is in. It
// is thawed afterwards.
//
// What is put by clone3 into a version 2 group that was ever killed may be
// killed at its birth (seen on Linux 6.18): make it anew to use it again.
func (g *Group) Kill() error {
	pids, err := g.others()
	if err != nil || len(pids) == 0 {
		return err
	}
	whole := false
	if d, ok := g.p.unified(); ok {
		// cgroup.kill (5.14) reaches all at once, also what is just forking.
		// Version 1's freezer still holds them: thaw below.
		err := writeAt(int(d.f.Fd()), g.name+"/cgroup.kill", "1")
		whole = err == nil || errors.Is(err, unix.ENODEV)
	}
	if whole && !g.p.version1() {
		return nil // frozen ones of version 2 die as well
	}
	freezer, err := g.p.freezer(g.name)
	if err != nil {
		return g.signalAll()
	}
	// Frozen, nothing forks on or hides. What does not stop is killed running,
	// and asked again by Remove until nothing is left.
	if err := g.freeze(context.Background(), freezer, killFreeze); err != nil && !errors.Is(err, errdefs.ErrUnavailable) && !isGone(err) {
		return errors.Join(fmt.Errorf("freeze cgroup %s: %w", g.full(), err), g.Thaw())
	}
	return errors.Join(g.signalAll(), g.Thaw())
}

// others lists the processes of the group, and refuses one that this process is
// in: frozen it would never go on.
func (g *Group) others() ([]int, error) {
	pids, err := g.Pids()
	if err == nil && slices.Contains(pids, os.Getpid()) {
		err = errclass.Errorf(errdefs.ErrFailedPrecondition, "cgroup %s holds this very process", g.full())
	}
	return pids, err
}

// version1 reports whether any hierarchy is of version 1.
func (p *Parent) version1() bool {
	return slices.ContainsFunc(p.dirs, func(d dir) bool { return !d.Unified })
}

// KillAll kills everything in the group and waits until nothing is left, at
// most two seconds or until the context ends.
//
// Unavailable: processes do not go away, in uninterruptible sleep as a rule.
func (g *Group) KillAll(ctx context.Context) error {
	return g.repeat(ctx, "end processes of", func() error {
		pids, err := g.Pids()
		if err == nil && len(pids) > 0 {
			err = unix.EBUSY
		}
		return err
	})
}

// signalAll kills the processes that are in the group now. A number may have
// gone to another process since it was read: each is first held by descriptor,
// and signalled if the group still lists it then.
func (g *Group) signalAll() error {
	pids, err := g.others()
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(pids, killBatch) {
		if err := g.signalBatch(batch); err != nil {
			return err
		}
	}
	return nil
}

// signalBatch kills those of the processes that are in the group.
func (g *Group) signalBatch(pids []int) error {
	held := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == nil:
			held[pid] = fd
		case !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL): // EINVAL: its leader thread is gone
			return fmt.Errorf("hold process %d of cgroup %s: %w", pid, g.full(), err)
		}
	}
	still, err := g.Pids()
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of cgroup %s: %w", pid, g.full(), err)
		}
	}
	return nil
}

// Remove kills what is in the group, waits for it to be gone (at most two
// seconds), and removes the group and those below it in every hierarchy, with
// those above it that Tree.Make has made and nobody uses. One that is not there
// is fine.
//
// Unavailable: processes do not go away, in uninterruptible sleep as a rule.
// Nothing waits for them: the caller asks again later.
func (g *Group) Remove(ctx context.Context) error {
	if err := g.repeat(ctx, "remove", g.sweep); err != nil {
		return err
	}
	if g.own {
		g.p.RemoveMade()
	}
	return nil
}

// repeat tries until it succeeds, and kills in between.
func (g *Group) repeat(ctx context.Context, act string, try func() error) error {
	if err := g.check(); err != nil {
		return err
	}
	wait := firstWait
	var err error
	deadline := time.Now().Add(emptyTimeout)
	for round := 0; ; round++ {
		if err = try(); err == nil {
			return nil
		}
		if round < killRounds {
			if killErr := g.Kill(); killErr != nil {
				return fmt.Errorf("%s cgroup %s: %w", act, g.full(), killErr)
			}
		}
		if time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			wait = min(2*wait, longestWait)
		}
	}
	pids, _ := g.Pids()
	return errclass.Errorf(errdefs.ErrUnavailable, "%s cgroup %s: %w; processes left: %v", act, g.full(), err, describe(pids))
}

// describe names processes with the state in which they hang.
func describe(pids []int) []string {
	var out []string
	for _, pid := range pids[:min(len(pids), 10)] {
		state := "?"
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			if at := strings.LastIndex(string(stat), ") "); at >= 0 && at+2 < len(stat) { // the name may hold any byte
				state = string(stat[at+2])
			}
		}
		where, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
		out = append(out, fmt.Sprintf("%d (%s %s)", pid, state, where))
	}
	return out
}

// sweep removes the directories, deepest first; EBUSY while processes are in.
func (g *Group) sweep() error {
	if err := g.check(); err != nil {
		return err
	}
	var errs []error
	for _, d := range g.p.dirs {
		if err := removeBelow(int(d.f.Fd()), g.name, 0); err != nil {
			errs = append(errs, &os.PathError{Op: "remove", Path: d.Label() + ":" + g.name, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeBelow removes one directory and those inside it.
func removeBelow(at int, name string, depth int) error {
	err := again(func() error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) })
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// EBUSY: processes, or groups inside.
	if depth >= maxDepth {
		return err
	}
	names, listErr := subdirs(at, name)
	if errors.Is(listErr, unix.ENOENT) {
		return nil
	}
	if listErr != nil || len(names) == 0 {
		return err
	}
	for _, n := range names {
		if err := removeBelow(at, name+"/"+n, depth+1); err != nil {
			return err
		}
	}
	err = again(func() error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
