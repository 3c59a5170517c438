package driverhost

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds on what a driver may say.
const (
	longestLine = 8 << 10 // bytes of one; the rest of it is dropped
	longestWord = 300     // bytes of the last word, in an error
	burst       = 200     // lines at once
	perSecond   = 50      // lines a second after that
)

// said reads a driver's stderr into the host's log and keeps its last word. A
// flood is thinned out, never waited for: a driver must not hang in a write.
type said struct {
	log  *slog.Logger
	over chan struct{} // closed when there is no more to read

	mu    sync.Mutex
	last  string // guarded by mu
	fatal bool   // last is where a Go program says why it crashed. Guarded by mu
}

func newSaid(log *slog.Logger) *said { return &said{log: log, over: make(chan struct{})} }

// read reads until the end, which comes with the driver's.
func (s *said) read(r io.Reader) {
	defer close(s.over)
	left, since, dropped := float64(burst), time.Now(), 0
	lines := bufio.NewReaderSize(r, longestLine)
	for {
		line, err := readLine(lines)
		text := strings.TrimRight(line, "\r\n")
		if text != "" {
			now := time.Now()
			left, since = min(burst, left+now.Sub(since).Seconds()*perSecond), now
			level, msg, args := parseLine(text)
			s.keep(msg, args)
			if left < 1 {
				dropped++
			} else {
				left--
				if dropped > 0 {
					s.log.Warn("the driver said too much", "lines_dropped", dropped)
					dropped = 0
				}
				s.log.Log(context.Background(), level, msg, args...)
			}
		}
		if err != nil {
			if dropped > 0 {
				s.log.Warn("the driver said too much", "lines_dropped", dropped)
			}
			return
		}
	}
}

// readLine reads a line; what is beyond the buffer's size is dropped.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	text := string(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return text, err
}

// parseLine reads a line of sdk/driver's logger; any other line is its own message.
func parseLine(text string) (slog.Level, string, []any) {
	var fields map[string]any
	if text[0] != '{' || json.Unmarshal([]byte(text), &fields) != nil || fields["@message"] == nil {
		return slog.LevelInfo, text, nil
	}
	var level slog.Level
	if name, _ := fields["@level"].(string); level.UnmarshalText([]byte(name)) != nil {
		level = slog.LevelInfo
	}
	msg := fmt.Sprint(fields["@message"])
	var args []any
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasPrefix(k, "@") {
			args = append(args, k, fields[k])
		}
	}
	return level, msg, args
}

// keep remembers a line as the last word. A crash of a Go program says first why,
// then where.
func (s *said) keep(msg string, args []any) {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "error" {
			msg += ": " + fmt.Sprint(args[i+1])
		}
	}
	crash := strings.HasPrefix(msg, "panic: ") || strings.HasPrefix(msg, "fatal error: ")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal && !crash {
		return
	}
	s.fatal = crash
	if len(msg) > longestWord {
		msg = msg[:longestWord] + "…"
	}
	s.last = strings.ToValidUTF8(msg, "?")
}

// lastWord is what the driver said last; empty for nothing.
func (s *said) lastWord() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
