package overlay

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/gantryd/gantry/sdk/layerstore"
)

// poolSize is how many root filesystems are made ahead.
const poolSize = 4

// pool makes empty root filesystems ahead: three new inodes on a busy disk
// take longer than all the rest of PrepareRootfs. It begins to fill when the
// first one is asked for, so that an idle driver makes nothing.
type pool struct {
	store   *layerstore.Store
	ready   chan string   // staged directories, each with upper/ and work/
	quit    chan struct{} // closed by close
	filling atomic.Bool
	ended   sync.Once
	done    sync.WaitGroup
}

func newPool(store *layerstore.Store) *pool {
	// One less than poolSize: the goroutine holds another.
	return &pool{store: store, ready: make(chan string, poolSize-1), quit: make(chan struct{})}
}

// take returns a staged directory with empty upper/ and work/.
func (p *pool) take() (string, error) {
	defer func() {
		if p.filling.CompareAndSwap(false, true) {
			p.done.Go(p.fill)
		}
	}()
	select {
	case stage := <-p.ready:
		return stage, nil
	default:
		return p.make()
	}
}

// fill makes directories until close. When one cannot be made, it ends: the
// next PrepareRootfs will say why, and begin again.
func (p *pool) fill() {
	defer p.filling.Store(false)
	for {
		stage, err := p.make()
		if err != nil {
			return
		}
		select {
		case p.ready <- stage:
		case <-p.quit:
			_ = p.store.Discard(stage) // else the next start does
			return
		}
	}
}

// make makes one now.
func (p *pool) make() (string, error) {
	stage, err := p.store.Stage()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"upper", "work"} {
		path := filepath.Join(stage, dir)
		if err = os.Mkdir(path, 0o755); err == nil {
			err = os.Chmod(path, 0o755) // whatever the umask is
		}
		if err != nil {
			return "", errors.Join(layerstore.Class("make "+dir+" directory", err), p.store.Discard(stage))
		}
	}
	return stage, nil
}

// close removes what was made ahead.
func (p *pool) close() {
	p.ended.Do(func() { close(p.quit) })
	p.done.Wait()
	for {
		select {
		case stage := <-p.ready:
			_ = p.store.Discard(stage) // else the next start does
		default:
			return
		}
	}
}
