package eventlog

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// Export writes the log in dir as JSON lines: each event as it was stored, byte
// for byte, and for each damage, where it is, a line {"damage":{…}} with the
// fields of Finding. It reads all that is readable, with or without an engine.
func Export(ctx context.Context, dir string, w io.Writer) (Summary, error) {
	files, err := openDir(dir, true)
	if err != nil {
		return Summary{}, err
	}
	defer files.Close()
	return ExportFS(ctx, files, w)
}

// ExportFS is Export on any filesystem; it leaves files open.
func ExportFS(ctx context.Context, files FS, w io.Writer) (Summary, error) {
	out := bufio.NewWriterSize(w, 64<<10) // remembers its first error until Flush
	v := &verifier{
		each: func(r Record) error {
			_, err := out.Write(r.Payload)
			return err
		},
		report: func(f Finding) {
			line, err := json.Marshal(map[string]Finding{"damage": f})
			if err == nil {
				_, _ = out.Write(append(line, '\n'))
			}
		},
	}
	sum, err := walk(ctx, files, v)
	if err != nil {
		return sum, err
	}
	if err := out.Flush(); err != nil {
		return sum, fmt.Errorf("export event log: %w", err)
	}
	return sum, nil
}
