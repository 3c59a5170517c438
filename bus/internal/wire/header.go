package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// headerVersion begins every block of headers (NATS ADR-4).
const headerVersion = "NATS/1.0"

// Field is one header line.
type Field struct{ Name, Value string }

// Header is a message's headers, in order. Names are compared as they are
// written: those of the bus are all our own.
type Header []Field

// Get is the value of the first field of that name, or empty.
func (h Header) Get(name string) string {
	for _, f := range h {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (h Header) encode() ([]byte, error) {
	if len(h) == 0 {
		return nil, nil
	}
	size := len(headerVersion) + 4
	for _, f := range h {
		size += len(f.Name) + len(f.Value) + 4
	}
	b := append(append(make([]byte, 0, size), headerVersion...), "\r\n"...)
	for _, f := range h {
		if f.Name == "" || strings.ContainsAny(f.Name, ":\r\n ") || strings.ContainsAny(f.Value, "\r\n") {
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "header %q: %q cannot be sent", f.Name, f.Value)
		}
		b = append(b, f.Name...)
		b = append(b, ": "...)
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// decodeHeader reads a block of headers and the status in its first line, if
// there is one.
func decodeHeader(b []byte) (Header, int, error) {
	first, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || !bytes.HasPrefix(first, []byte(headerVersion)) {
		return nil, 0, fmt.Errorf("headers begin with %q", first)
	}
	status := 0
	if f := strings.Fields(string(first[len(headerVersion):])); len(f) > 0 {
		n, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, 0, fmt.Errorf("status %q is no number", f[0])
		}
		status = n
	}
	var h Header
	for len(rest) > 0 {
		var line []byte
		if line, rest, ok = bytes.Cut(rest, []byte("\r\n")); !ok {
			return nil, 0, fmt.Errorf("headers that do not end")
		}
		if len(line) == 0 {
			return h, status, nil
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok {
			return nil, 0, fmt.Errorf("header line %q", line)
		}
		h = append(h, Field{name, strings.TrimSpace(value)})
	}
	return nil, 0, fmt.Errorf("headers that do not end")
}

// checkSubject refuses what would be taken for another word of the protocol.
func checkSubject(subject string) error {
	if subject == "" || strings.ContainsAny(subject, " \t\r\n\x00") {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%q is no subject", subject)
	}
	return nil
}
