/*
 * ops_cover.c - names, sysctls, and what the program must not see or change.
 */
#include "shim.h"

#define SIOCGIFFLAGS 0x8913UL
#define SIOCSIFFLAGS 0x8914UL
#define IFF_UP 1

#define NULL_MAJOR 1
#define NULL_MINOR 3

static int sysctl(struct init *in, const struct op *op)
{
	char path[4 + MAX_PATH + 1] = "sys/";

	memcpy(path + 4, op->two.a.s, op->two.a.n + 1);
	return write_own_proc(in, path, op->two.b.s, op->two.b.n);
}

/* struct ifreq, whose header drags the C library in. */
struct if_flags {
	char name[16];
	short flags;
	char rest[22];
};

static int link_up(const char *name, size_t n)
{
	struct if_flags req = { 0 };
	int fd = (int)SYS3(__NR_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	long r;

	if (fd < 0)
		return fd;
	memcpy(req.name, name, n);
	r = sys_ioctl(fd, SIOCGIFFLAGS, &req);
	req.flags = (short)(req.flags | IFF_UP);
	if (r == 0)
		r = sys_ioctl(fd, SIOCSIFFLAGS, &req);
	sys_close(fd);
	return (int)r;
}

/* A clone of an attached mount. */
static int clone_mount(int fd, unsigned more)
{
	return (int)SYS3(__NR_open_tree, fd, "",
			 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | more);
}

/* The null device to cover files with: the one that the plan attached, or the
 * container's, which nothing of the container has run yet to replace. Looked
 * at by descriptor, and cloned from that same descriptor. */
static int null_mount(struct init *in, const struct op *op)
{
	struct statx st = { 0 };
	int fd = op->fd == NO_FD ? path_open(init_root(in), "/dev/null", O_NOFOLLOW) :
				   in->files[op->fd];
	long r;

#ifdef WEAKEN_NULL /* test/escape */
	return clone_mount(path_open(init_root(in), "/dev/null", 0), 0);
#endif
	if (fd < 0)
		return fd == -ENOENT ? -ENODEV : fd;
	r = SYS5(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (r == 0 && ((st.stx_mode & S_IFMT) != S_IFCHR || st.stx_rdev_major != NULL_MAJOR ||
		       st.stx_rdev_minor != NULL_MINOR))
		r = -ENODEV;
	if (r == 0)
		r = clone_mount(fd, 0);
	if (op->fd == NO_FD)
		sys_close(fd);
	return (int)r;
}

/* One empty tmpfs serves all directories; it can be cloned once attached. */
static int empty_mount(struct init *in)
{
	struct blob none = { 0 };

	if (in->mask_dir >= 0)
		return clone_mount(in->mask_dir, 0);
	in->mask_dir = make_fs("tmpfs", &none, in->files,
			       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
				       MOUNT_ATTR_NOEXEC);
	return in->mask_dir;
}

static int mask(struct init *in, const struct op *op)
{
	struct statx st = { 0 };
	int target = path_open(init_root(in), op->two.a.s, 0);
	int cover;
	long r;

	/* In a user namespace none can be made once part of /proc is covered. */
	if (in->labels)
		init_proc(in);
	if (target < 0)
		return target == -ENOENT || target == -ENOTDIR ? 0 : target;
	r = SYS5(__NR_statx, target, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (r == 0) {
		path_forget(in);
		cover = (st.stx_mode & S_IFMT) == S_IFDIR ? empty_mount(in) : null_mount(in, op);
		r = cover < 0 ? cover : attach_mount(cover, target);
		if (cover >= 0 && cover != in->mask_dir)
			sys_close(cover);
	}
	sys_close(target);
	return (int)r;
}

static int read_only(struct init *in, const struct op *op)
{
	struct attr ro = { .set = MOUNT_ATTR_RDONLY, .recursive = 1 };
	int target = path_open(init_root(in), op->two.a.s, 0);
	int tree, r;

	if (target < 0)
		return target == -ENOENT || target == -ENOTDIR ? 0 : target;
	tree = clone_mount(target, AT_RECURSIVE);
	r = tree < 0 ? tree : set_attr(tree, &ro);
	path_forget(in);
	if (r == 0)
		r = attach_mount(tree, target);
	if (tree >= 0)
		sys_close(tree);
	sys_close(target);
	return r;
}

int op_cover(struct init *in, const struct op *op)
{
	switch (op->kind) {
	case OP_HOSTNAME:
		return (int)SYS2(__NR_sethostname, op->two.a.s, op->two.a.n);
	case OP_DOMAINNAME:
		return (int)SYS2(__NR_setdomainname, op->two.a.s, op->two.a.n);
	case OP_SYSCTL:
		return sysctl(in, op);
	case OP_MASK:
		return mask(in, op);
	case OP_READ_ONLY:
		return read_only(in, op);
	case OP_LINK_UP:
		return link_up(op->two.a.s, op->two.a.n);
	}
	return -ENOSYS;
}
