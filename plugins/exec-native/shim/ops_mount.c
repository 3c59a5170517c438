/*
 * ops_mount.c - mounts, all from descriptor to descriptor.
 */
#include "shim.h"

#define DEVPTS_MAGIC 0x1cd1
#define TIOCSPTLCK 0x40045431UL
#define TIOCGPTPEER 0x5441UL
#define TIOCSCTTY 0x540eUL
#define TIOCSWINSZ 0x5414UL

int set_attr(int fd, const struct attr *a)
{
	struct mount_attr m = { .attr_set = a->set, .attr_clr = a->clear,
				.propagation = a->propagation };
	unsigned flags = AT_EMPTY_PATH | (a->recursive ? AT_RECURSIVE : 0);

	if (!a->set && !a->clear && !a->propagation)
		return 0;
	return (int)SYS5(__NR_mount_setattr, fd, "", flags, &m, sizeof m);
}

int attach_mount(int fd, int target)
{
	return (int)SYS5(__NR_move_mount, fd, "", target, "",
			 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static int configure(int fs, struct blob *params, const int *files)
{
	long r = 0;

	for (uint32_t i = 0; i < params->count && r >= 0; i++) {
		uint32_t type = blob_u32(params);
		uint32_t fd = blob_u32(params);
		struct str key = blob_str(params);
		struct str value = blob_str(params);

		if (type == PARAM_FLAG)
			r = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_FLAG, key.s, 0, 0);
		else if (type == PARAM_STRING)
			r = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, key.s, value.s, 0);
		else if (fd == NO_FD)
			r = -EINVAL;
		else
			r = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_FD, key.s, 0, files[fd]);
	}
	if (r >= 0)
		r = SYS5(__NR_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
	return (int)r;
}

/* A detached mount of a new file system. */
int make_fs(const char *type, struct blob *params, const int *files, uint64_t attrs)
{
	int fs = (int)SYS2(__NR_fsopen, type, FSOPEN_CLOEXEC);
	int r;

	if (fs < 0)
		return fs;
	r = configure(fs, params, files);
	if (r >= 0)
		r = (int)SYS3(__NR_fsmount, fs, FSMOUNT_CLOEXEC, attrs);
	sys_close(fs);
	return r;
}

static int attach_at(struct init *in, int fd, const char *path, uint32_t create)
{
	int target = path_make(in, path, create);
	int r;

	if (target < 0)
		return target;
	test_pause(in->root, path);
#ifdef WEAKEN_TARGET /* test/escape */
	sys_close(target);
	target = open_anywhere(in->root, path, O_PATH);
#endif
	r = attach_mount(fd, target);
	sys_close(target);
	return r;
}

/* The root covers the old "/" until the pivot: no directory of the host is
 * needed to put it on. */
static int take_root(struct init *in, const struct op *op)
{
	int fd = in->files[op->fd];
	int r = set_attr(fd, &op->attach.attr);

	if (r < 0)
		return r;
	r = (int)SYS5(__NR_move_mount, fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
	if (r == 0)
		in->root = fd;
	path_forget(in);
	return r;
}

/* The root is on its place in the namespace that we stay in. */
static int take_root_here(struct init *in, const struct op *op)
{
	in->root = in->files[op->fd];
	path_forget(in);
	return 0;
}

static int attach(struct init *in, const struct op *op)
{
	int fd = in->files[op->fd];
	int r = set_attr(fd, &op->attach.attr);

	return r < 0 ? r : attach_at(in, fd, op->attach.target.s, op->attach.create);
}

/* Whether a bind mount is of what it was looked at as. Whoever can rename on the
 * way to a source could have turned it elsewhere. */
static int is_meant(int fd, const struct op *op)
{
	struct statx st = { 0 };

#ifdef WEAKEN_SOURCE /* test/escape */
	return 1;
#endif
	if (!op->bind.inode)
		return 1;
	return SYS5(__NR_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) == 0 &&
	       st.stx_ino == op->bind.inode && st.stx_dev_major == op->bind.major &&
	       st.stx_dev_minor == op->bind.minor;
}

/* Who shall be a peer of a host's mount must not be a slave. */
static int join_peers(int peer, int fd)
{
	struct attr alone = { .propagation = MS_PRIVATE };
	int r = set_attr(fd, &alone);

	return r < 0 ? r : (int)SYS5(__NR_move_mount, peer, "", fd, "",
				     MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH |
					     MOVE_MOUNT_T_EMPTY_PATH);
}

static int bind(struct init *in, const struct op *op)
{
	struct blob attrs = op->bind.attrs;
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
			 (op->bind.recursive ? AT_RECURSIVE : 0);
	int fd = (int)SYS3(__NR_open_tree, AT_FDCWD, op->bind.source.s, flags);
	int r = fd;

	if (fd < 0)
		return fd;
	if (!is_meant(fd, op))
		r = -ESTALE;
	if (r >= 0 && op->fd != NO_FD)
		r = join_peers(in->files[op->fd], fd);
	for (uint32_t i = 0; i < attrs.count && r >= 0; i++) {
		struct attr a = blob_attr(&attrs);

		r = set_attr(fd, &a);
	}
	if (r >= 0)
		r = attach_at(in, fd, op->bind.target.s, op->bind.create);
	sys_close(fd);
	return r;
}

/* Whether masks and read-only paths will lie on it. */
static int is_covered_later(const struct str *type)
{
#ifdef WEAKEN_PROC_LINK /* test/escape */
	return type->n == 0;
#endif
	return (type->n == 4 && memcmp(type->s, "proc", 4) == 0) ||
	       (type->n == 5 && memcmp(type->s, "sysfs", 5) == 0);
}

/* No part of the way to a procfs or sysfs may be a link: another container with
 * a volume in common could turn it elsewhere before the masks come, which would
 * then cover something else. */
static int attach_plain(struct init *in, int fd, const char *path)
{
	int target = (int)sys_openat2(init_root(in), path, O_PATH | O_DIRECTORY | O_CLOEXEC,
				      RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
	int r;

	if (target == -ENOENT)
		return attach_at(in, fd, path, CREATE_DIR);
	if (target < 0)
		return target;
	path_forget(in);
	r = attach_mount(fd, target);
	sys_close(target);
	return r;
}

/* The container's procfs serves for our own writes as well: the descriptor is
 * of the mount that was made here, whatever becomes of its place. One that was
 * attached nowhere takes the kernel a grace period to let go of. */
static int keep_proc(struct init *in, const struct op *op, int fd)
{
	if (in->proc >= 0 || op->fs.attrs & MOUNT_ATTR_RDONLY || op->fs.params.count > 1 ||
	    op->fs.type.n != 4 || memcmp(op->fs.type.s, "proc", 4) != 0)
		return 0;
	in->proc = fd;
	in->proc_shown = 1;
	return 1;
}

static int filesystem(struct init *in, const struct op *op)
{
	struct blob params = op->fs.params;
	int fd = make_fs(op->fs.type.s, &params, in->files, op->fs.attrs);
	int r;

	if (fd < 0)
		return fd;
	if (is_covered_later(&op->fs.type) && op->fs.create == CREATE_DIR)
		r = attach_plain(in, fd, op->fs.target.s);
	else
		r = attach_at(in, fd, op->fs.target.s, op->fs.create);
	if (r < 0 || !keep_proc(in, op, fd))
		sys_close(fd);
	return r;
}

static int change(struct init *in, const struct op *op)
{
	int fd = path_open(init_root(in), op->attach.target.s, 0);
	int r;

	if (fd < 0)
		return fd;
	r = set_attr(fd, &op->attach.attr);
	sys_close(fd);
	return r;
}

/* The new root in the old one's place, the old one upon it, and off with it. */
static int pivot(struct init *in)
{
	long r = SYS1(__NR_fchdir, in->root);

	if (r == 0)
		r = SYS2(__NR_pivot_root, ".", ".");
	if (r == 0)
		r = SYS2(__NR_umount2, ".", MNT_DETACH);
	if (r == 0)
		r = SYS1(__NR_chdir, "/");
	return (int)r;
}

/* The same where "/" is no mount that could be taken from under us. With the
 * host's procfs and sysfs still below, a user namespace inside could mount whole
 * ones of its own. */
static int move_root(struct init *in)
{
	long r = SYS1(__NR_fchdir, in->root);

	SYS2(__NR_umount2, "/proc", MNT_DETACH);
	SYS2(__NR_umount2, "/sys", MNT_DETACH);
	if (r == 0)
		r = SYS1(__NR_chroot, ".");
	if (r == 0)
		r = SYS1(__NR_chdir, "/");
	return (int)r;
}

/* Where the mount namespace is the host's there is nothing to be pivoted. */
static int change_root(struct init *in, const struct op *op)
{
	long r = SYS1(__NR_fchdir, in->files[op->fd]);

	if (r == 0)
		r = SYS1(__NR_chroot, ".");
	if (r == 0)
		r = SYS1(__NR_chdir, "/");
	return (int)r;
}

static int open_pty(struct init *in, int *slave)
{
	uint64_t type[16] = { 0 };
	int unlock = 0;
	long master = sys_openat2(init_root(in), "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC,
				  RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	long r;

	if (master < 0)
		return (int)master;
	r = SYS2(__NR_fstatfs, master, type);
	if (r == 0 && type[0] != DEVPTS_MAGIC)
		r = -ENODEV;
	if (r == 0)
		r = sys_ioctl((int)master, TIOCSPTLCK, &unlock);
	if (r == 0)
		r = sys_ioctl((int)master, TIOCGPTPEER, (void *)(O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (r < 0) {
		sys_close((int)master);
		return (int)r;
	}
	*slave = (int)r;
	return (int)master;
}

static int take_pty(struct init *in, const struct op *op)
{
	struct report r = { .kind = REPORT_CONSOLE };
	uint16_t size[4] = { op->console.rows, op->console.cols, 0, 0 };
	int slave = -1, master = open_pty(in, &slave), err;

	if (master < 0)
		return master;
	in->console = slave;
	err = (int)sys_ioctl(slave, TIOCSWINSZ, size);
	if (err == 0)
		err = (int)sys_ioctl(slave, TIOCSCTTY, NULL);
	if (err == 0)
		err = report_send(in->sync, &r, master);
	sys_close(master);
	return err;
}

/* The pty is /dev/console as well, by its descriptor. */
static int console(struct init *in, const struct op *op)
{
	int err = take_pty(in, op), mount;

	if (err < 0)
		return err;
	test_pause(in->root, "/dev/console.open");
#ifdef WEAKEN_CONSOLE /* test/escape */
	mount = path_open(in->root, "/dev/pts/0", 0);
	mount = (int)SYS3(__NR_open_tree, mount, "",
			  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
#else
	mount = (int)SYS3(__NR_open_tree, in->console, "",
			  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
#endif
	if (mount < 0)
		return mount;
	err = attach_at(in, mount, "/dev/console", CREATE_FILE);
	sys_close(mount);
	return err;
}

int op_mount(struct init *in, const struct op *op)
{
	switch (op->kind) {
	case OP_PROPAGATION:
		return (int)SYS5(__NR_mount, 0, "/", 0, op->flags, 0);
	case OP_ROOT:
		return take_root(in, op);
	case OP_ATTACH:
		return attach(in, op);
	case OP_FILESYSTEM:
		return filesystem(in, op);
	case OP_SET_ATTR:
		return change(in, op);
	case OP_PIVOT:
		return pivot(in);
	case OP_MOVE_ROOT:
		return move_root(in);
	case OP_ROOT_HERE:
		return take_root_here(in, op);
	case OP_CHROOT:
		return change_root(in, op);
	case OP_BIND:
		return bind(in, op);
	case OP_PTY:
		return take_pty(in, op);
	case OP_CONSOLE:
		return console(in, op);
	}
	return -ENOSYS;
}
