package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// initramfs is a cpio archive in the kernel's format (newc, see its
// Documentation/driver-api/early-userspace/buffer-format.rst): our init and the
// modules that it loads.
func initramfs(init string, modules []string) ([]byte, error) {
	var c cpio
	for _, dir := range []string{"dev", "root", "modules", "proc", "sys"} {
		c.add(dir, 0o040755, nil)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	c.add("init", 0o100755, program)
	for _, m := range modules {
		b, err := os.ReadFile(m)
		if err != nil {
			return nil, err
		}
		c.add("modules/"+filepath.Base(m), 0o100644, b)
	}
	c.add("TRAILER!!!", 0, nil)
	return c.out.Bytes(), nil
}

type cpio struct {
	out   bytes.Buffer
	inode int
}

// add appends one file; the mode is that of stat.
func (c *cpio) add(name string, mode int, data []byte) {
	c.inode++
	fmt.Fprintf(&c.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.out.WriteString(name)
	c.out.WriteByte(0)
	c.pad()
	c.out.Write(data)
	c.pad()
}

// pad fills to a multiple of four bytes.
func (c *cpio) pad() {
	for c.out.Len()%4 != 0 {
		c.out.WriteByte(0)
	}
}
