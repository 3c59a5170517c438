package driver

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// The environment variables by which a host tells a driver its Config.
const (
	EnvEngineID   = "GANTRY_ENGINE_ID"
	EnvEngineName = "GANTRY_ENGINE_NAME"
	EnvRoot       = "GANTRY_DRIVER_ROOT"
	EnvRun        = "GANTRY_DRIVER_RUN"
	EnvLibexec    = "GANTRY_LIBEXEC"
	EnvCgroup     = "GANTRY_CGROUP"
	EnvLogLevel   = "GANTRY_LOG_LEVEL" // "debug", "info", "warn" or "error"; empty means info
	EnvSocketDir  = "PLUGIN_UNIX_SOCKET_DIR"
)

// Environ is the environment by which a driver is told c.
func (c Config) Environ() []string {
	return []string{
		EnvEngineID + "=" + c.EngineID,
		EnvEngineName + "=" + c.EngineName,
		EnvRoot + "=" + c.Root,
		EnvRun + "=" + c.Run,
		EnvLibexec + "=" + c.Libexec,
		EnvCgroup + "=" + c.Cgroup,
	}
}

// ConfigFrom reads a Config from an environment, e.g. by os.Getenv.
// InvalidArgument names the variable that is missing or cannot be.
func ConfigFrom(getenv func(string) string) (Config, error) {
	c := Config{
		EngineID:   getenv(EnvEngineID),
		EngineName: getenv(EnvEngineName),
		Root:       getenv(EnvRoot),
		Run:        getenv(EnvRun),
		Libexec:    getenv(EnvLibexec),
		Cgroup:     getenv(EnvCgroup),
	}
	if c.EngineID == "" {
		return Config{}, Errorf(errdefs.ErrInvalidArgument, "%s is not set", EnvEngineID)
	}
	if !engineNameValid(c.EngineName) {
		return Config{}, Errorf(errdefs.ErrInvalidArgument, "%s is %q: want 1 to 32 bytes of [a-z0-9-]", EnvEngineName, c.EngineName)
	}
	for _, dir := range []struct{ name, value string }{{EnvRoot, c.Root}, {EnvRun, c.Run}} {
		if !filepath.IsAbs(dir.value) {
			return Config{}, Errorf(errdefs.ErrInvalidArgument, "%s is %q: want an absolute path", dir.name, dir.value)
		}
	}
	return c, nil
}

func engineNameValid(name string) bool {
	if name == "" || len(name) > 32 {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// ProgramName is the name of the program of a driver.
func ProgramName(kind, name string) string { return "gantry-" + kind + "-" + name }

// ParseProgramName takes a program's file name apart. InvalidArgument if it is
// not that of a driver.
func ParseProgramName(file string) (kind, name string, err error) {
	for _, kind := range Kinds() {
		if name, ok := strings.CutPrefix(file, "gantry-"+kind+"-"); ok && name != "" {
			return kind, name, nil
		}
	}
	return "", "", Errorf(errdefs.ErrInvalidArgument, "%q does not name a driver: want gantry-KIND-NAME with a kind of %s",
		file, fmt.Sprint(Kinds()))
}

// Kinds lists the kinds of drivers.
func Kinds() []string { return []string{KindGraph, KindNet, KindExec, KindImage} }
