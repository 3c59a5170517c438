package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/moby/profiles/apparmor"
)

// Where the kernel tells about AppArmor, and the program that compiles profiles.
const (
	apparmorSwitch = "/sys/module/apparmor/parameters/enabled"
	apparmorFS     = "/sys/kernel/security/apparmor" // profiles are loaded through it
	apparmorParser = "apparmor_parser"
)

// apparmorProfile is the profile of containers that name none: the text of
// Docker's docker-default, under a name of our own.
const apparmorProfile = "gantry-default"

// confinement is what AppArmor does on this machine. The standard profile is
// loaded once in the life of a driver, beside its start: compiling it takes some
// hundred milliseconds, and only who wants the profile waits for it. Whoever
// unloads it afterwards has later starts refused by the kernel, by its name.
type confinement struct {
	enabled bool          // AppArmor is in force
	ready   chan struct{} // closed when the following are known

	standard string // profile of those who name none; empty where it cannot be had
	warning  string // why it cannot
}

// confine finds out about AppArmor, and begins to load the profile with load.
func confine(enabled bool, load func() (string, error)) *confinement {
	c := &confinement{enabled: enabled, ready: make(chan struct{})}
	if !enabled {
		close(c.ready)
		return c
	}
	go func() {
		defer close(c.ready)
		var err error
		if c.standard, err = load(); err == nil {
			return
		}
		follows := "containers that name no profile have none"
		if c.standard != "" {
			follows = "the profile of that name that was loaded earlier is used"
		}
		c.warning = fmt.Sprintf("AppArmor: %s; %s", strings.Join(strings.Fields(err.Error()), " "), follows) // the parser says it in lines
	}()
	return c
}

// hasAppArmor reports whether AppArmor is in force. That is settled at boot.
func hasAppArmor() bool {
	text, err := os.ReadFile(apparmorSwitch)
	return err == nil && strings.HasPrefix(string(text), "Y")
}

// loadProfile puts the standard profile into the kernel, in place of an earlier
// one, and names it; fs is where AppArmor takes profiles. One that an earlier
// driver has loaded is named beside the error.
func loadProfile(fs string) (string, error) {
	if _, err := os.Stat(fs); err != nil {
		return "", fmt.Errorf("securityfs is not mounted: %w", err)
	}
	_, err := exec.LookPath(apparmorParser)
	if errors.Is(err, exec.ErrNotFound) {
		err = fmt.Errorf("%s is not installed: it is in the package apparmor", apparmorParser)
	}
	if err == nil {
		err = apparmor.InstallDefault(apparmorProfile)
	}
	if err == nil {
		return apparmorProfile, nil
	}
	err = fmt.Errorf("load profile %s: %w", apparmorProfile, err)
	if loaded, look := apparmor.IsLoaded(apparmorProfile); look == nil && loaded {
		return apparmorProfile, err
	}
	return "", err
}

// choose settles the profile of a start: what was named, or the standard one
// unless the container is privileged. It is kept with the run, so that execs,
// also under a later driver, get the same. NotImplemented: a profile was named,
// and the kernel has no AppArmor in force.
func (c *confinement) choose(ctx context.Context, s execdriver.Security) (string, error) {
	switch {
	case s.AppArmor == oci.Unconfined, s.AppArmor == "" && (s.Privileged || !c.enabled):
		return oci.Unconfined, nil
	case !c.enabled:
		return "", driver.Errorf(errdefs.ErrNotImplemented, "Security.AppArmor %q: this kernel has no AppArmor in force", s.AppArmor)
	case s.AppArmor != "":
		return s.AppArmor, nil
	}
	if err := c.await(ctx); err != nil {
		return "", err
	}
	if c.standard == "" {
		return oci.Unconfined, nil
	}
	return c.standard, nil
}

// await waits until the profile is loaded, or known not to be.
func (c *confinement) await(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// warnings says what is missing.
func (c *confinement) warnings() []string {
	if c.warning == "" {
		return nil
	}
	return []string{c.warning}
}

// apparmorOf names the profile of a process; empty for none. A start has settled
// it; an exec with every right has none.
func apparmorOf(s execdriver.Security) string {
	if s.AppArmor == oci.Unconfined {
		return ""
	}
	return s.AppArmor
}
