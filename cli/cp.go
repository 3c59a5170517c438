package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// copyFlags are cp as it is asked for.
type copyFlags struct {
	archive bool // owners go along
	follow  bool
	quiet   bool
}

func (a *app) cpCmd() *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use:   "cp [flags] CONTAINER:SOURCE DESTINATION|-\n  gantry cp [flags] SOURCE|- CONTAINER:DESTINATION",
		Short: "Copy files out of a container or into it, whether it runs or not; - is a tar stream", Args: exactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("quiet") {
				f.quiet = !isTerminal(a.Stdout)
			}
			from, source := splitPlace(args[0])
			to, target := splitPlace(args[1])
			switch {
			case source == "" || target == "":
				return &usageError{errors.New("source can not be empty, nor can the destination"), c.CommandPath()}
			case from != "" && to != "":
				return &usageError{errors.New("copying between containers is not supported"), c.CommandPath()}
			case from != "":
				return a.copyOut(c.Context(), from, source, target, &f)
			case to != "":
				return a.copyIn(c.Context(), source, to, target, &f)
			}
			return &usageError{errors.New("must specify at least one container source"), c.CommandPath()}
		},
	}
	c.Flags().BoolVarP(&f.archive, "archive", "a", false, "keep users and groups")
	c.Flags().BoolVarP(&f.follow, "follow-link", "L", false, "a symbolic link as the source stands for what it leads to")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "do not tell what was copied (default: when there is no terminal)")
	return c
}

// splitPlace takes CONTAINER:PATH apart. What begins with / or . is a path of ours.
func splitPlace(arg string) (container, name string) {
	container, name, ok := strings.Cut(arg, ":")
	if !ok || filepath.IsAbs(arg) || strings.HasPrefix(container, ".") || container == "" {
		return "", arg
	}
	return container, name
}

// copyOut copies out of a container.
func (a *app) copyOut(ctx context.Context, ref, source, target string, f *copyFlags) error {
	src := placeOf(inside(source))
	in := query.CopyIn{Ref: ref, Path: src.path, Follow: f.follow || src.slash}
	d, err := a.openCopy(ctx, query.OpCopyOut, in)
	if err != nil {
		return noSuchFile(err, source, ref)
	}
	defer d.close()
	if d.said.Stat == nil {
		return errclass.Errorf(errdefs.ErrInternal, "copy: the driver has not said what stands at %s", source)
	}
	src.exists, src.dir = true, isDirMode(d.said.Stat.Mode)
	if src.slash && !src.dir {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%s in container %s is not a directory", source, ref)
	}
	counted := &counter{r: d}
	if target == "-" {
		err = copyTar(a.Stdout, counted, src.base)
		return d.end(err)
	}
	dst, err := localTarget(target)
	if err != nil {
		return err
	}
	dir, base, err := dst.landing(src)
	if err != nil {
		return err
	}
	if err := d.end(unpack(dir, counted, base, f.archive)); err != nil {
		return err
	}
	if !f.quiet {
		fmt.Fprintf(a.Stderr, "Successfully copied %s to %s\n", humanSize(counted.n), dst.path)
	}
	return nil
}

// copyIn copies into a container.
func (a *app) copyIn(ctx context.Context, source, ref, target string, f *copyFlags) error {
	dst, err := a.containerTarget(ctx, ref, inside(target))
	if err != nil {
		return err
	}
	in := query.CopyIn{Ref: ref, Path: dst.path, Follow: true, KeepIDs: f.archive}
	var fill func(w io.Writer) error
	if source == "-" {
		if !dst.dir {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "destination \"%s:%s\" must be a directory", ref, target)
		}
		fill = func(w io.Writer) error { _, err := io.Copy(w, a.Stdin); return err }
	} else {
		src, err := localSource(source, f.follow)
		if err != nil {
			return err
		}
		dir, base, err := dst.landing(src)
		if err != nil {
			return err
		}
		in.Path = dir
		fill = func(w io.Writer) error { return pack(w, src.path, base) }
	}
	d, err := a.openCopy(ctx, query.OpCopyIn, in)
	if err != nil {
		return noSuchFile(err, in.Path, ref)
	}
	defer d.close()
	counted := &writeCounter{w: d}
	err = fill(counted)
	if closed := d.closeWrite(); err == nil {
		err = closed
	}
	if err := d.end(err); err != nil {
		return noSuchFile(err, in.Path, ref)
	}
	if !f.quiet && source != "-" {
		fmt.Fprintf(a.Stderr, "Successfully copied %s to %s:%s\n", humanSize(counted.n), ref, target)
	}
	return nil
}

// containerTarget says what stands at the destination inside. A symbolic link
// stands for what it leads to, also when that is not there yet.
func (a *app) containerTarget(ctx context.Context, ref, target string) (place, error) {
	dst := placeOf(target)
	var said query.Copying
	stat := func(name string) error {
		said = query.Copying{}
		return a.ask(ctx, query.OpCopyOut, query.CopyIn{Ref: ref, Path: name, StatOnly: true}, &said)
	}
	err := stat(dst.path)
	if err == nil && said.Stat != nil && said.Stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		link := said.Stat.Link
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(dst.path), link)
		}
		slash := dst.slash
		dst = placeOf(link)
		dst.slash = slash
		err = stat(dst.path)
	}
	switch {
	case err == nil && said.Stat != nil:
		dst.exists, dst.dir = true, isDirMode(said.Stat.Mode)
	case err != nil && (!errdefs.IsNotFound(err) || said.Container == "" && a.unknownContainer(ctx, ref)):
		return dst, err
	}
	return dst, nil
}

// unknownContainer tells a container that is not there from a file that is not.
func (a *app) unknownContainer(ctx context.Context, ref string) bool {
	_, err := a.container(ctx, ref)
	return err != nil
}

func isDirMode(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }

// noSuchFile says in Docker's words that a path is not there.
func noSuchFile(err error, name, ref string) error {
	if errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "no such container") {
		return errclass.Errorf(errdefs.ErrNotFound, "could not find the file %s in container %s", name, ref)
	}
	return err
}

// place is one end of a copy.
type place struct {
	path   string // clean
	base   string // what its entries are called by; "." for a directory's contents alone
	slash  bool   // said to be a directory: it ended with / or /.
	exists bool
	dir    bool
}

// placeOf reads a path. What its end says is kept: dir/. means what is in it.
func placeOf(name string) place {
	p := place{path: path.Clean(name), slash: strings.HasSuffix(name, "/") || path.Base(name) == "."}
	p.base = path.Base(p.path)
	if last := name[strings.LastIndexByte(name, '/')+1:]; last == "." || last == ".." || p.path == "/" {
		p.base = "."
	}
	return p
}

// inside is a path as it is meant inside: absolute, with its end kept.
func inside(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return "/" + name
}

// landing says into which directory the entries of a source go, and what they
// are called by there.
func (dst place) landing(src place) (dir, base string, err error) {
	switch {
	case dst.exists && dst.dir:
		return dst.path, src.base, nil
	case dst.exists && src.dir:
		return "", "", errclass.Errorf(errdefs.ErrInvalidArgument, "cannot copy directory: %s is a file", dst.path)
	case dst.exists && dst.slash:
		return "", "", errclass.Errorf(errdefs.ErrInvalidArgument, "not a directory: %s", dst.path)
	case !src.dir && dst.slash:
		return "", "", errclass.Errorf(errdefs.ErrNotFound, "destination directory must exist: %s", dst.path)
	}
	return path.Dir(dst.path), path.Base(dst.path), nil
}

// localTarget is a destination of ours. Symbolic links are followed, also one
// that leads to nothing yet.
func localTarget(name string) (place, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return place{}, err
	}
	p := placeOf(abs + name[len(strings.TrimRight(name, "/")):])
	const most = 10 // links in a row
	for range most {
		info, err := os.Lstat(p.path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			parent, err := os.Stat(path.Dir(p.path))
			if err == nil && !parent.IsDir() {
				err = fmt.Errorf("%s is not a directory", path.Dir(p.path))
			}
			return p, err
		case err != nil:
			return p, err
		case info.Mode()&os.ModeSymlink == 0:
			p.exists, p.dir = true, info.IsDir()
			return p, nil
		}
		link, err := os.Readlink(p.path)
		if err != nil {
			return p, err
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(path.Dir(p.path), link)
		}
		p.path = path.Clean(link)
	}
	return p, fmt.Errorf("too many symbolic links at %s", name)
}

// localSource is a source of ours.
func localSource(name string, follow bool) (place, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return place{}, err
	}
	p := placeOf(abs)
	p.slash = strings.HasSuffix(name, "/") || path.Base(name) == "."
	if last := name[strings.LastIndexByte(name, '/')+1:]; last == "." || last == ".." {
		p.base = "."
	}
	if follow || p.slash {
		if p.path, err = filepath.EvalSymlinks(abs); err != nil {
			return p, err
		}
	}
	info, err := os.Lstat(p.path)
	if err != nil {
		return p, err
	}
	p.exists, p.dir = true, info.IsDir()
	if p.slash && !p.dir {
		return p, fmt.Errorf("%s is not a directory", name)
	}
	return p, nil
}
