package eventlog

import "fmt"

// makeRoom sees to it that n bytes and a footer fit into allocated space of the
// last segment; for an ordinary batch the reserve must be left behind them.
func (j *Journal) makeRoom(n int64, essential bool) error {
	need := j.end + n + footerSize
	if !essential {
		need += j.options.Reserve
	}
	if need <= j.allocated {
		return nil
	}
	// First with what an ordinary batch wants, so that the reserve fills up
	// again as soon as it can; then with what this one needs.
	var err error
	for _, to := range []int64{j.end + n + footerSize + j.options.Reserve + j.options.Chunk, need} {
		if err = j.allocate(to); err == nil {
			return nil
		}
		if !noSpace(err) {
			return j.fail("allocate", err)
		}
	}
	return exhausted(err)
}

// allocate extends the last segment. Half an extension is given back, for it
// would take the last blocks of the disk from everybody and be no use.
func (j *Journal) allocate(to int64) error {
	file := j.active().file
	err := file.Allocate(j.allocated, to)
	if err == nil {
		j.allocated = to
		return nil
	}
	if cut := file.Truncate(j.allocated); cut != nil {
		return fmt.Errorf("give back half an extension: %v: %w", cut, err)
	}
	return err
}

// roll closes the last segment and begins the next one. No space for a next
// file is no error: the log stays with the old one and its reserve.
func (j *Journal) roll() error {
	old := j.active()
	foot := footer{Records: j.tree.count, First: old.header.First, Last: old.last,
		Root: j.tree.root(), PrevRoot: old.header.PrevRoot, LastHash: old.lastHash}
	next := &segment{name: segmentName(old.last + 1), last: old.last, lastHash: old.lastHash, end: headerSize,
		header: header{First: old.last + 1, Prev: old.lastHash, PrevRoot: foot.Root}}
	size := headerSize + j.options.Reserve + j.options.Chunk
	if j.allocated < j.end+footerSize {
		return nil // essential batches have eaten all but the last bytes: not now
	}
	if err := j.newSegment(next, size); err != nil {
		if noSpace(err) {
			return nil
		}
		return j.fail("begin "+next.name, err)
	}
	if err := writeSynced(old.file, foot.encode(), j.end); err != nil {
		next.file.Close()
		return j.fail("close "+old.name, err)
	}
	if err := j.nameSegment(next); err != nil {
		next.file.Close()
		return j.fail("begin "+next.name, err)
	}
	// The old one's reserve is given back. If this does not reach the disk, the
	// next open does it.
	if err := old.file.Truncate(j.end + footerSize); err != nil {
		next.file.Close()
		return j.fail("cut "+old.name, err)
	}
	j.state.Lock()
	defer j.state.Unlock()
	j.segments = append(j.segments, next)
	j.tree, j.end, j.allocated = merkle{}, headerSize, size
	return nil
}

// newSegment makes the file of s under its .new name, with space but empty.
func (j *Journal) newSegment(s *segment, size int64) error {
	file, err := j.fs.Open(s.name+newSuffix, true)
	if err != nil {
		return err
	}
	if err := file.Allocate(0, size); err != nil {
		file.Close()
		if gone := j.fs.Remove(s.name + newSuffix); gone != nil {
			return fmt.Errorf("remove %s%s: %w", s.name, newSuffix, gone)
		}
		return err
	}
	s.file = file
	return nil
}

// nameSegment writes the header of a new segment and gives it its name.
func (j *Journal) nameSegment(s *segment) error {
	if err := writeSynced(s.file, s.header.encode(), 0); err != nil {
		return err
	}
	if err := j.fs.Rename(s.name+newSuffix, s.name); err != nil {
		return err
	}
	return j.fs.SyncDir()
}

func writeSynced(f File, b []byte, off int64) error {
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Datasync()
}

// saveFile writes a whole small file atomically: a .new name, fdatasync, rename.
func saveFile(files FS, name string, parts ...[]byte) error {
	temporary := name + newSuffix
	file, err := files.Open(temporary, true)
	if err != nil {
		return err
	}
	err = writeParts(file, parts)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = files.Rename(temporary, name)
	}
	if err != nil {
		_ = files.Remove(temporary) // the next open removes it too
		return err
	}
	return files.SyncDir()
}

func writeParts(file File, parts [][]byte) error {
	var off int64
	for _, part := range parts {
		if _, err := file.WriteAt(part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return file.Datasync()
}
