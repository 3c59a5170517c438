package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gantryd/gantry/core"
)

// uploadPoll is how often one looks whether an upload of a former process has
// been read.
const uploadPoll = 200 * time.Millisecond

// SweepUploads removes what a former process has received in dir: the clients
// that held it are gone. What an accepted load is still to read stays until it
// has been read, or the load given up; that is waited for in the background, until
// ctx ends (the next process sweeps again). Call it before uploads are served.
func (e *Engine) SweepUploads(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	unread := e.unread()
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if unread[path] {
			go e.removeRead(ctx, path)
			continue
		}
		err = firstError(err, os.Remove(path))
	}
	return err
}

// removeRead removes an upload when no load is to read it any more.
func (e *Engine) removeRead(ctx context.Context, path string) {
	for e.unread()[path] {
		select {
		case <-time.After(uploadPoll):
		case <-ctx.Done():
			return
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("an upload could not be removed", "error", err)
	}
}

// unread are the archives that accepted loads are still to read.
func (e *Engine) unread() map[string]bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	paths := map[string]bool{}
	for _, j := range e.durable.Jobs {
		if j.Load != nil && j.Open() && j.Load.Slot.State == core.Absent {
			paths[j.Load.Archive] = true
		}
	}
	return paths
}
