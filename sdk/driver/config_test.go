package driver

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestConfigCrosses(t *testing.T) {
	want := Config{EngineID: "id", EngineName: "a-1", Root: "/r", Run: "/run/x", Libexec: "/l", Cgroup: "/gantry"}
	got, err := ConfigFrom(lookUp(want.Environ()))
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func lookUp(environ []string) func(string) string {
	return func(name string) string {
		for _, e := range environ {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return ""
	}
}

func TestConfigRefused(t *testing.T) {
	good := Config{EngineID: "id", EngineName: "a", Root: "/r", Run: "/run"}
	for what, change := range map[string]func(*Config){
		EnvEngineID:   func(c *Config) { c.EngineID = "" },
		EnvEngineName: func(c *Config) { c.EngineName = "Not-Small" },
		EnvRoot:       func(c *Config) { c.Root = "relative" },
		EnvRun:        func(c *Config) { c.Run = "" },
	} {
		bad := good
		change(&bad)
		_, err := ConfigFrom(lookUp(bad.Environ()))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	long := good
	long.EngineName = strings.Repeat("a", 33)
	if _, err := ConfigFrom(lookUp(long.Environ())); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name of 33 bytes: %v", err)
	}
}

func TestProgramNames(t *testing.T) {
	for file, want := range map[string][2]string{
		"gantry-graphdriver-overlay": {KindGraph, "overlay"}, "gantry-net-my-net": {KindNet, "my-net"},
		"gantry-exec-native": {KindExec, "native"}, "gantry-image-oci": {KindImage, "oci"},
	} {
		kind, name, err := ParseProgramName(file)
		if err != nil || kind != want[0] || name != want[1] || ProgramName(kind, name) != file {
			t.Errorf("%s: %s, %s, %v", file, kind, name, err)
		}
	}
	for _, file := range []string{"gantry", "gantry-net-", "gantry-odd-x", "net-bridge"} {
		if _, _, err := ParseProgramName(file); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// The host's parser takes this time format and these keys, and no others
// (go-plugin, log_entry.go).
func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	NewLogger(&out, "warn").Info("too quiet")
	NewLogger(&out, "debug").Debug("loud", "key", 7, slog.Group("g", "msg", "inner"))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if line["@level"] != "debug" || line["@message"] != "loud" || line["key"] != 7.0 {
		t.Errorf("%s", &out)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", line["@timestamp"].(string)); err != nil {
		t.Error(err)
	}
	if inner := line["g"].(map[string]any); inner["msg"] != "inner" {
		t.Errorf("a key inside a group was renamed: %s", &out)
	}
	Config{}.Logger().Error("goes nowhere")
}
