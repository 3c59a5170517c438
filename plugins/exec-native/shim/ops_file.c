/*
 * ops_file.c - nodes, links, directories and small files of the container.
 */
#include "shim.h"

static int own(int dir, const char *name, const struct node *n)
{
	if (!n->uid && !n->gid)
		return 0;
	return (int)SYS5(__NR_fchownat, dir, name, n->uid, n->gid, AT_SYMLINK_NOFOLLOW);
}

static int make_node(int dir, const char *name, const struct node *n)
{
	/* The kernel's own packing of a device number. */
	unsigned long dev = (n->minor & 0xff) | (unsigned long)n->major << 8 |
			    (unsigned long)(n->minor & ~0xffu) << 12;
	long r = SYS4(__NR_mknodat, dir, name, n->mode, dev);

	return r < 0 ? (int)r : own(dir, name, n);
}

static int make_directory(int dir, const char *name, const struct node *n)
{
	long r = SYS3(__NR_mkdirat, dir, name, n->mode);

	if (r == -EEXIST) {
		r = sys_openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
		if (r >= 0)
			r = sys_close((int)r);
		return (int)r;
	}
	return r < 0 ? (int)r : own(dir, name, n);
}

/* A FIFO or device in the file's place must neither block us nor be written. */
static int write_file(int dir, const char *name, const struct node *n)
{
	struct statx st = { 0 };
	long fd = sys_openat(dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
			     n->mode);
	long r;

	if (fd < 0)
		return (int)fd;
	r = SYS5(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (r == 0 && (st.stx_mode & S_IFMT) != S_IFREG)
		r = -EINVAL;
	if (r == 0)
		r = SYS2(__NR_ftruncate, fd, 0);
	if (r == 0 && n->data.n)
		r = write_all((int)fd, n->data.p, n->data.n);
	if (r == 0)
		r = SYS2(__NR_fchmod, fd, n->mode);
	if (r == 0 && (n->uid || n->gid))
		r = SYS3(__NR_fchown, fd, n->uid, n->gid);
	sys_close((int)fd);
	return (int)r;
}

static int make_symlink(int dir, const char *name, const char *to)
{
	char there[MAX_PATH + 1];
	size_t n = strlen(to);
	long r = SYS3(__NR_symlinkat, to, dir, name);

	if (r != -EEXIST)
		return (int)r;
	r = SYS4(__NR_readlinkat, dir, name, there, sizeof there);
	if (r == (long)n && memcmp(there, to, n) == 0)
		return 0;
	return -EEXIST;
}

int op_file(struct init *in, const struct op *op)
{
	const char *path = op->kind == OP_SYMLINK ? op->two.a.s : op->node.path.s;
	const char *name;
	int dir, r = -ENOSYS;

	/* A directory that can be reached is there, through links as well. */
	if (op->kind == OP_MKDIR) {
		r = path_open(init_root(in), path, O_DIRECTORY);
		if (r >= 0)
			return (int)sys_close(r);
	}
	dir = path_parent(in, path, &name);
	if (dir < 0)
		return dir;
	if (!*name)
		r = -EINVAL;
	else if (op->kind == OP_NODE)
		r = make_node(dir, name, &op->node);
	else if (op->kind == OP_MKDIR)
		r = make_directory(dir, name, &op->node);
	else if (op->kind == OP_WRITE_FILE)
		r = write_file(dir, name, &op->node);
	else if (op->kind == OP_SYMLINK)
		r = make_symlink(dir, name, op->two.b.s);
	return r;
}
