package driverhost

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/errclass"
)

// replace puts the program at path in the place of the one that serves. Steps
// that come meanwhile wait; those that run against the old one end first, or
// are cut and asked for again. If the new one does not shake hands, say who it is
// and what it holds, the old one serves on.
func (d *hosted) replace(ctx context.Context, path string) (*process, error) {
	if err := d.hold(ctx); err != nil {
		return nil, err
	}
	defer d.letGo()
	if p := d.dead(); p != nil {
		d.bury(p)
	}
	old := d.current()
	if old != nil {
		old.drain(ctx, d.host.patience.drain)
	}
	p, err := d.start(ctx, path, old)
	if err == nil {
		if _, err = d.list(ctx, p); err != nil {
			d.end(p)
		}
	}
	if err != nil {
		kept := ""
		if old != nil {
			kept = "; the one before serves on"
		}
		return nil, errclass.Errorf(errdefs.ErrFailedPrecondition, "%w%s", err, kept)
	}
	if old = d.dismiss(); old != nil {
		d.retire(ctx, old)
	}
	if err := d.introduce(d.host.ctx, p); err != nil {
		d.end(p)
		if old != nil {
			d.host.Need(d.kind, d.name, old.path) // the log's word: the one before serves on
		}
		return nil, err
	}
	d.forgive()
	d.begin(p)
	return p, nil
}
