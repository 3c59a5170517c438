package cli

import (
	"io"
	"os"
	"sync"
)

// output is our standard output, which remembers the first write that failed: most
// of what is printed is printed without a look at that, and a command whose words are
// lost is not to end as one that has told them.
type output struct {
	to io.Writer

	mu  sync.Mutex // guards what follows
	bad error
}

// Write writes on.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.keep(err)
	return n, err
}

// ReadFrom copies with what the writer below has for it, which may be splice(2). An
// error is the caller's: it can as well be one of reading.
func (o *output) ReadFrom(r io.Reader) (int64, error) { return io.Copy(o.to, r) }

func (o *output) keep(err error) {
	if err == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bad == nil {
		o.bad = err
	}
}

// lost is why something that was written is lost; nil if nothing is.
func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bad
}

// fileOf is the file that a stream of ours is, or nil.
func fileOf(stream any) *os.File {
	if o, ok := stream.(*output); ok {
		stream = o.to
	}
	f, _ := stream.(*os.File)
	return f
}
