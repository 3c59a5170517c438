package execnative

import (
	"context"
	"errors"
)

func (d *native) dial(ctx context.Context, r *run) (events, error) {
	return nil, errors.New("not yet")
}
