package image

import (
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantryd/gantry/internal/errclass"
)

// Normalize makes the full reference of what a person may have typed:
// "busybox" is docker.io/library/busybox:latest. A digest stays, and without a
// tag beside it none is added.
// InvalidArgument: it is no reference.
func Normalize(name string) (string, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "image name %q: %w", clip(name), err)
	}
	return named.String(), nil
}

// clip shortens a stranger's string for a message.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// nameOf is the full reference that an entry of an index bears, if any:
// containerd's annotation, else the layout's own where it is more than a tag.
func nameOf(annotations map[string]string) string {
	for _, key := range []string{annotationName, annotationRef} {
		value := annotations[key]
		if !strings.ContainsAny(value, ":/") {
			continue
		}
		if name, err := Normalize(value); err == nil {
			return name
		}
	}
	return ""
}
