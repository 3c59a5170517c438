package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestCopyUpBesideForks: a process that is being made meanwhile has copies of the files
// that were written, until its exec; the mount becomes read-only all the same.
func TestCopyUpBesideForks(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	stop := make(chan struct{})
	var forks sync.WaitGroup
	for range 2 {
		forks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
				if err == nil {
					_, err = p.Wait()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer forks.Wait()
	defer close(stop)
	m := specs.Mount{Destination: "/" + filepath.Base(dir), Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro"}}
	for range 200 {
		d, err := (Opener{Root: root}).Open(m)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
}
