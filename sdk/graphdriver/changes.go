package graphdriver

import "context"

// AbilityChanges is the ability of a Changer, as Info lists it.
const AbilityChanges = "changes"

// Changer is implemented by drivers that can name what a container has changed.
type Changer interface {
	// Changes lists the paths that differ from the image, by path. A
	// directory is told when something in it was added or deleted.
	// NotFound: no such root filesystem.
	Changes(ctx context.Context, container string) ([]Change, error)
}

// Change is one path.
type Change struct {
	Kind string // "A" added, "C" changed, "D" deleted
	Path string // absolute, inside the container
}
