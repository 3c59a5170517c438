package report

import (
	"context"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
)

// drainer is the client's side of the common service.
type drainer interface {
	Drain(ctx context.Context) error
}

// programChecks are what every program is held to, whatever its kind.
func programChecks[D driver.Common](s conform.Suite[D], name string) []conform.Check[D] {
	return []conform.Check[D]{
		{
			Name:    "program-name",
			Promise: "The name that Info tells is the one in the program's name.",
			Run: func(ctx context.Context, b *conform.Bench[D]) {
				info, err := b.Driver().Info(ctx)
				if err != nil {
					b.Fatalf("Info: %v", err)
				}
				if name != "" && info.Name != name {
					b.Errorf("Info tells the name %q, the program's name %q", info.Name, name)
				}
			},
		},
		{
			Name:    "drain",
			Promise: "Drain answers once no call is in flight; new calls are Unavailable, Info and List work on.",
			Run: func(ctx context.Context, b *conform.Bench[D]) {
				d, ok := any(b.Driver()).(drainer)
				if !ok {
					b.Fatalf("the client cannot drain")
				}
				soon, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				for range 2 {
					if err := d.Drain(soon); err != nil {
						b.Errorf("Drain of an idle driver: %v", err)
					}
				}
				conform.WantClass(b, "a new call of a drained driver", s.Probe(ctx, b.Driver()), "unavailable")
				if _, err := b.Driver().Info(ctx); err != nil {
					b.Errorf("Info of a drained driver: %v", err)
				}
				if _, err := b.Driver().List(ctx); err != nil {
					b.Errorf("List of a drained driver: %v", err)
				}
				b.Close()
			},
		},
		{
			Name:    "killed-at-rest",
			Promise: "A driver that was killed starts again on the same directories.",
			Run: func(ctx context.Context, b *conform.Bench[D]) {
				for range 2 {
					b.Driver()
					b.Kill()
				}
				if _, err := b.Driver().List(ctx); err != nil {
					b.Errorf("List after a kill: %v", err)
				}
			},
		},
	}
}
