package runtime

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// logger tells errors and warnings to whoever called the runtime. Callers read
// the file line by line, level, msg and time being the keys that they look for
// (conmon, containerd's shim).
type logger struct {
	json, debug bool
	file        *os.File
}

// open takes a file for the log; without a name it is standard error.
func (l *logger) open(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	l.file = f
	return nil
}

func (l *logger) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// line writes one entry.
func (l *logger) line(level, msg string) {
	w := stderr()
	if l.file != nil {
		w = l.file
	}
	now := time.Now()
	if l.json {
		entry := struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, msg, now.Format(time.RFC3339)}
		if text, err := json.Marshal(entry); err == nil {
			fmt.Fprintf(w, "%s\n", text)
		}
		return
	}
	if l.file != nil {
		fmt.Fprintf(w, "time=%q level=%s msg=%q\n", now.Format(time.RFC3339), level, msg)
		return
	}
	if level == "error" {
		fmt.Fprintf(w, "gantry-oci: %s\n", msg)
		return
	}
	fmt.Fprintf(w, "gantry-oci: %s: %s\n", level, msg)
}

// error tells why a command has failed. With a log file it is said on standard
// error too, where a person looks.
func (l *logger) error(err error) {
	l.line("error", err.Error())
	if l.file != nil {
		fmt.Fprintln(stderr(), err)
	}
}

// warn tells what was passed over.
func (l *logger) warn(format string, args ...any) { l.line("warning", fmt.Sprintf(format, args...)) }

// note tells what helps to find a fault.
func (l *logger) note(format string, args ...any) {
	if l.debug {
		l.line("debug", fmt.Sprintf(format, args...))
	}
}

func stderr() io.Writer { return os.Stderr }
func stdout() io.Writer { return os.Stdout }
