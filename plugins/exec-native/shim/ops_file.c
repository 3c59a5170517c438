/*
 * ops_file.c - nodes and links of the container.
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

	dir = path_parent(in, path, &name);
	if (dir < 0)
		return dir;
	if (!*name)
		r = -EINVAL;
	else if (op->kind == OP_NODE)
		r = make_node(dir, name, &op->node);
	else if (op->kind == OP_SYMLINK)
		r = make_symlink(dir, name, op->two.b.s);
	return r;
}
