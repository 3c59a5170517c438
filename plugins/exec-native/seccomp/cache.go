package seccomp

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// cacheLimit bounds the number of kept filters. Few distinct ones are in use
// on a machine: one for each profile and set of capabilities.
const cacheLimit = 64

// Cache keeps compiled filters by the hash of what they were made of: profile,
// capabilities, architecture and kernel. Use NewCache.
type Cache struct {
	kernel string // release, since profiles have rules for kernels

	mu       sync.Mutex // guards the two below
	byHash   map[[sha256.Size]byte][]byte
	defaults map[string][]byte // of the default profile, by capabilities
}

// NewCache makes an empty cache for a kernel release (uname -r).
func NewCache(kernelRelease string) *Cache {
	return &Cache{kernel: kernelRelease, byHash: map[[sha256.Size]byte][]byte{}, defaults: map[string][]byte{}}
}

// Default is Docker's default profile as it applies to a process with this
// bounding set of capabilities ("CAP_CHOWN"), compiled.
func (c *Cache) Default(bounding []string) ([]byte, error) {
	caps := slices.Sorted(slices.Values(bounding))
	key := strings.Join(caps, " ")
	c.mu.Lock()
	prog, ok := c.defaults[key]
	c.mu.Unlock()
	if ok {
		return prog, nil
	}
	profile, err := DefaultProfile(bounding)
	if err != nil {
		return nil, err
	}
	if prog, err = c.Compile(profile); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.defaults) >= cacheLimit {
		clear(c.defaults)
	}
	c.defaults[key] = prog
	return prog, nil
}

// Compile is Compile with memory; the result is an array of struct
// sock_filter and must not be written to.
func (c *Cache) Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode seccomp profile: %w", err)
	}
	key := sha256.Sum256(slices.Concat(text, []byte(runtime.GOARCH), []byte{0}, []byte(c.kernel)))
	c.mu.Lock()
	prog, ok := c.byHash[key]
	c.mu.Unlock()
	if ok {
		return prog, nil
	}
	compiled, err := Compile(p)
	if err != nil {
		return nil, err
	}
	prog = compiled.Bytes()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byHash) >= cacheLimit {
		clear(c.byHash)
	}
	c.byHash[key] = prog
	return prog, nil
}

// DefaultProfile is Docker's default profile as it applies to a process with
// this bounding set.
func DefaultProfile(bounding []string) (*specs.LinuxSeccomp, error) {
	p, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: bounding},
	}})
	if err != nil {
		return nil, fmt.Errorf("resolve default seccomp profile: %w", err)
	}
	return p, nil
}

// LoadProfile reads a profile in Docker's form as it applies to a process with
// this bounding set, on this kernel.
func LoadProfile(text string, bounding []string) (*specs.LinuxSeccomp, error) {
	p, err := moby.LoadProfile(text, &specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: bounding},
	}})
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	return p, nil
}
