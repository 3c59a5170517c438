package execnative

import (
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/driver"
)

// withGroups adds further groups to a user, by the image's own files. A name
// that they do not know is refused, a number is taken as it is.
func withGroups(u oci.User, groups []string, read oci.FileReader) (oci.User, error) {
	if len(groups) == 0 {
		return u, nil
	}
	u.Groups = slices.Clone(u.Groups)
	for _, g := range groups {
		// The form of a user with a group looks up one group by both.
		found, err := oci.LookUpUser("0:"+g, read)
		if err != nil {
			return u, err
		}
		if g == "" {
			return u, driver.Errorf(errdefs.ErrInvalidArgument, "Process.Groups holds an empty name")
		}
		if !slices.Contains(u.Groups, found.GID) {
			u.Groups = append(u.Groups, found.GID)
		}
	}
	return u, nil
}
