package overlay

import (
	"os"
	"testing"
	"time"
)

// TestPoolFillsAgain: a disk that took nothing for a while is no reason to make nothing
// ahead ever after.
func TestPoolFillsAgain(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	if err := os.Rename(root+"/work", root+"/aside"); err != nil {
		t.Fatal(err)
	}
	if stage, err := d.pool.take(); err == nil {
		t.Fatalf("made %s in a directory that is not there", stage)
	}
	wait := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited for %s", what)
			}
		}
	}
	wait("the pool to give up", func() bool { return !d.pool.filling.Load() })
	if err := os.Rename(root+"/aside", root+"/work"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.pool.take(); err != nil {
		t.Fatal(err)
	}
	wait("the pool to be full", func() bool { return len(d.pool.ready) == cap(d.pool.ready) })
}
