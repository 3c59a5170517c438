package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
)

// logged is an event as the log's lines have it, whatever its name.
type logged struct {
	core.Header
	fields map[string]any // beside the header
	order  []string
}

// readLogged decodes a line. What later releases add is kept as it is.
func readLogged(line []byte) (logged, error) {
	var e logged
	if err := json.Unmarshal(line, &e.Header); err != nil {
		return e, fmt.Errorf("read an event: %w", err)
	}
	// Beside the header's name an event may have one of its own ("name"), which is
	// spelled the same in no case: the header's is "event".
	if err := json.Unmarshal(line, &e.fields); err != nil {
		return e, fmt.Errorf("read event %d: %w", e.Seq, err)
	}
	for _, k := range []string{"seq", "event", "time", "noun", "id", "job", "cause"} {
		delete(e.fields, k)
	}
	for k := range e.fields {
		e.order = append(e.order, k)
	}
	slices.Sort(e.order)
	return e, nil
}

// linePrinter shows events as lines that people can read.
type linePrinter struct {
	w   io.Writer
	day string // of the line before
}

func (p *linePrinter) print(line json.RawMessage) error {
	e, err := readLogged(line)
	if err != nil {
		return err
	}
	t := e.Time.Local()
	if day := t.Format("Monday, 2 January 2006"); day != p.day {
		p.day = day
		fmt.Fprintf(p.w, "-- %s --\n", day)
	}
	_, err = fmt.Fprintf(p.w, "%6d  %s  %-27s %-26s %s\n", e.Seq, t.Format("15:04:05.000"), nounOf(e.Noun, e.ID), e.Name, e.tail())
	return err
}

// nounOf is what an event is about, in a few letters.
func nounOf(kind, id string) string {
	switch kind {
	case core.KindJob:
		return "job " + shortJob(core.JobID(id))
	case core.KindDriver, core.KindEngine:
		if kind == core.KindEngine {
			id = id[:min(8, len(id))]
		}
		return kind + " " + id
	}
	return kind + " " + short(id)
}

// tail is what matters of an event beside what and when, and its job.
func (e *logged) tail() string {
	s := e.matter()
	if e.Job != "" && e.Noun != core.KindJob {
		s = strings.TrimSpace(s + "  [job " + shortJob(e.Job) + "]")
	}
	return s
}

// matter is the event's own fields: those of some events in words, of all others
// as they are, cut short.
func (e *logged) matter() string {
	switch e.Name {
	case "job.accepted":
		return e.accepted()
	case "job.ended":
		return e.words("outcome", "by", "fault")
	case "container.created":
		return e.words("name", "image_ref")
	case "container.started":
		return e.words("run", "pid")
	case "container.exited":
		if exit, ok := e.fields["exit"].(map[string]any); ok {
			return exitWords(exit)
		}
	case "container.network-attached":
		return e.words("network")
	case "container.rootfs-prepared", "container.userns-held":
		return ""
	case "container.exec-wanted":
		return strings.TrimSpace(e.words("exec") + " " + e.inner("spec", "args", "user", "cwd"))
	case "container.exec-exited":
		if exit, ok := e.fields["exit"].(map[string]any); ok {
			return e.words("exec") + " " + exitWords(exit)
		}
	case "container.health-changed":
		return e.words("status", "streak")
	case "container.update-wanted", "container.updated":
		return strings.TrimSpace(e.inner("resources") + " " + e.inner("restart"))
	case "image.loaded":
		if img, ok := e.fields["image"].(map[string]any); ok {
			return value("names", img["names"])
		}
	case "engine.initialized":
		return e.words("name", "pool")
	}
	return e.words(e.order...)
}

// words are fields as name=value, those that are there.
func (e *logged) words(keys ...string) string {
	var out []string
	for _, k := range keys {
		v, ok := e.fields[k]
		if !ok || v == nil || v == "" {
			continue
		}
		out = append(out, value(k, v))
	}
	return strings.Join(out, " ")
}

// inner are the fields within a field, those that are named or all of them.
func (e *logged) inner(field string, keys ...string) string {
	m, _ := e.fields[field].(map[string]any)
	if len(keys) == 0 {
		keys = slices.Sorted(maps.Keys(m))
	}
	in := logged{fields: m}
	return in.words(keys...)
}

const maxWord = 72 // characters of one value in a line

// value is one field. Faults tell their sentence, signals their name, durations
// a time, ids their beginning.
func value(key string, v any) string {
	text := ""
	switch x := v.(type) {
	case map[string]any:
		if message, ok := x["message"].(string); ok {
			return key + "=" + strconv.Quote(message)
		}
		if ip, ok := x["ip"].(string); ok {
			return key + "=" + ip
		}
		data, _ := json.Marshal(x) // came out of JSON
		text = clip(string(data), maxWord)
	case []any:
		var parts []string
		for _, p := range x {
			_, part, _ := strings.Cut(value("", p), "=")
			parts = append(parts, part)
		}
		text = clip(strings.Join(parts, ","), maxWord)
	case float64:
		text = number(key, x)
	case string:
		text = x
		if isHex(x) && len(x) == 64 || isDigest(x) {
			text = short(x)
		} else if strings.ContainsAny(x, " \t\n\"") {
			text = strconv.Quote(x)
		}
		text = clip(text, maxWord)
	default:
		text = fmt.Sprint(v)
	}
	return strings.TrimSuffix(key, "_ns") + "=" + text
}

func number(key string, x float64) string {
	switch {
	case key == "signal":
		return signalName(int(x))
	case strings.HasSuffix(key, "_ns"):
		return time.Duration(x).String()
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// accepted says who asked for what.
func (e *logged) accepted() string {
	command, _ := e.fields["command"].(string)
	s := command
	if subject, ok := e.fields["subject"].(map[string]any); ok {
		kind, _ := subject["kind"].(string)
		if id, _ := subject["id"].(string); id != "" && kind != core.KindJob {
			s += " " + nounOf(kind, id)
		}
	}
	if actor, ok := e.fields["actor"].(map[string]any); ok {
		s += " by " + actorWords(actor)
	}
	if client, _ := e.fields["client"].(string); client != "" {
		s += " with " + client
	}
	if reason, _ := e.fields["reason"].(string); reason != "" {
		s += " because " + strconv.Quote(reason)
	}
	return s
}

func actorWords(actor map[string]any) string {
	if engine, _ := actor["engine"].(bool); engine {
		return "the engine"
	}
	s := fmt.Sprintf("uid %v", actor["uid"])
	if pid, ok := actor["pid"].(float64); ok && pid > 0 {
		s += fmt.Sprintf(" (pid %.0f)", pid)
	}
	return s
}

func exitWords(exit map[string]any) string {
	s := fmt.Sprintf("code=%v", exit["code"])
	if sig, ok := exit["signal"].(float64); ok && sig != 0 {
		s += " signal=" + signalName(int(sig))
	}
	if oom, _ := exit["oom_killed"].(bool); oom {
		s += " out of memory"
	}
	if reason, _ := exit["reason"].(string); reason != "" {
		s += " (" + reason + ")"
	}
	return s
}
