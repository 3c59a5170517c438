package cgroup

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// rules reads "+c 1:3 rw" (allow) and "-a *:* rwm" (deny).
func rules(t *testing.T, lines ...string) []specs.LinuxDeviceCgroup {
	t.Helper()
	var out []specs.LinuxDeviceCgroup
	for _, line := range lines {
		d, ok := parseDeviceList(strings.Replace(line[1:], "a", "b", 1))
		if !ok || len(d.exceptions) != 1 {
			t.Fatalf("rule %q", line)
		}
		e := d.exceptions[0]
		out = append(out, specs.LinuxDeviceCgroup{Allow: line[0] == '+', Type: line[1:2], Major: &e.major, Minor: &e.minor, Access: line[strings.LastIndex(line, " ")+1:]})
	}
	return out
}

func TestDevicesV1(t *testing.T) {
	for name, c := range map[string]struct {
		rules []string
		now   *string // devices.list of an existing group
		want  []string
	}{
		"a list": {[]string{"-a *:* rwm", "+c 1:3 rw", "+b *:* m"}, nil,
			[]string{"devices.deny=a *:* rwm<", "devices.allow=c 1:3 rw<", "devices.allow=b *:* m<", "devices.list=<c 1:3 rw;b *:* m"}},
		"what everything decides": {[]string{"+c 1:3 rw", "-a *:* rwm", "+c 1:5 r", "+a *:* rwm"}, nil,
			[]string{"devices.allow=a *:* rwm<", "devices.list=<a *:* rwm"}},
		"all kinds of one number": {[]string{"-a *:* rwm", "+a 1:3 r"}, nil,
			[]string{"devices.deny=a *:* rwm<", "devices.allow=b 1:3 r<", "devices.allow=c 1:3 r<", "devices.list=<b 1:3 r;c 1:3 r"}},
		"twice": {[]string{"-a *:* rwm", "+c 1:3 r", "+c 1:3 w"}, nil,
			[]string{"devices.deny=a *:* rwm<", "devices.allow=c 1:3 r<", "devices.allow=c 1:3 w<", "devices.list=<c 1:3 rw"}},
		"taken back": {[]string{"-a *:* rwm", "+c 1:3 rw", "-c 1:3 w"}, nil,
			[]string{"devices.deny=a *:* rwm<", "devices.allow=c 1:3 rw<", "devices.deny=c 1:3 w<", "devices.list=<c 1:3 r"}},
		"on top of what the parent has": {[]string{"-c 1:3 w"}, nil, []string{"devices.deny=c 1:3 w<"}},
		"all but one":                   {[]string{"+a *:* rwm", "-c 1:3 w"}, nil, []string{"devices.allow=a *:* rwm<", "devices.deny=c 1:3 w<", "devices.list=<a *:* rwm"}},
		"a part of a rule":              {[]string{"-a *:* rwm", "+c 1:* rwm", "-c 1:3 rwm"}, nil, []string{"!c 1:3 rwm (allow: false) after one for c 1:* rwm"}},
		"a part let in":                 {[]string{"+a *:* rwm", "-c *:* rwm", "+c 1:3 rwm"}, nil, []string{"!c 1:3 rwm (allow: true) after one for c *:* rwm"}},
		// No moment without /dev/null, which the old and the new list allow.
		"changed in use": {[]string{"-a *:* rwm", "+c 1:3 rw", "+c 1:5 r"}, ptr("c 1:3 rwm\nc 1:7 w\n"),
			[]string{"devices.allow=c 1:5 r<", "devices.deny=c 1:3 m<", "devices.deny=c 1:7 w<", "devices.list=<c 1:3 rw;c 1:5 r"}},
		"opened in use": {[]string{"+a *:* rwm"}, ptr("c 1:3 rwm\n"), []string{"devices.allow=a *:* rwm<", "devices.list=<a *:* rwm"}},
		"closed in use": {[]string{"-a *:* rwm", "+c 1:3 r"}, ptr("a *:* rwm\n"), []string{"devices.deny=a *:* rwm<", "devices.allow=c 1:3 r<", "devices.list=<c 1:3 r"}},
		"one more":      {[]string{"+c 1:5 r"}, ptr("c 1:3 rw\n"), []string{"devices.allow=c 1:5 r<", "devices.list=<c 1:3 rw;c 1:5 r"}},
		"one to none":   {[]string{"+c 1:5 r"}, ptr(""), []string{"devices.allow=c 1:5 r<", "devices.list=<c 1:5 r"}},
		"none":          {[]string{"-a *:* rwm"}, ptr("c 1:3 rw\n"), []string{"devices.deny=c 1:3 rw<", "devices.list=<"}},
	} {
		var now map[string]string
		if c.now != nil {
			now = map[string]string{"devices.list": *c.now}
		}
		got, err := plan(&specs.LinuxResources{Devices: rules(t, c.rules...)}, machine(1, "", now))
		if strings.HasPrefix(c.want[0], "!") {
			if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), c.want[0][1:]) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || !reflect.DeepEqual(lines(got), c.want) {
			t.Errorf("%s: %q %v\nwant %q", name, lines(got), err, c.want)
		}
		if two, err := plan(&specs.LinuxResources{Devices: rules(t, c.rules...)}, machine(2, "", nil)); err != nil || len(two) > 0 {
			t.Errorf("%s, version 2 has a program and no files: %q %v", name, lines(two), err)
		}
	}
}

func TestBadDeviceRules(t *testing.T) {
	for _, d := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Access: "rx"}, {Major: ptr[int64](-2)}, {Minor: ptr[int64](1 << 32)}} {
		if _, err := parseDevice(d); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	for _, text := range []string{"c 1:3", "x 1:3 r\n", "c a:3 r\n", "c 1:3 q\n"} {
		if d, ok := parseDeviceList(text); ok {
			t.Errorf("%q is %+v", text, d)
		}
	}
}
