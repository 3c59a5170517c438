/*
 * path.c - paths inside the container, by descriptor. The image may hold any
 * symbolic link; the kernel keeps the walk below the root (RESOLVE_IN_ROOT),
 * and what is missing is made by mkdirat and openat on descriptors already
 * checked, never through a link.
 */
#include "shim.h"

/* openat2 answers EAGAIN when somebody renames at the same time. */
enum { TRIES = 128 };

#if defined(WEAKEN_IN_ROOT) || defined(WEAKEN_TARGET)
/* test/escape: a path as if there were no root to be kept below. */
int open_anywhere(int root, const char *path, uint64_t flags)
{
	while (*path == '/')
		path++;
	return (int)sys_openat(root, *path ? path : ".", (int)flags | O_CLOEXEC, 0);
}
#endif

static int open_below(int root, const char *path, uint64_t flags)
{
	long r = -EAGAIN;

#ifdef WEAKEN_IN_ROOT /* test/escape */
	return open_anywhere(root, path, flags);
#endif
	for (int i = 0; i < TRIES && (r == -EAGAIN || r == -EINTR); i++)
		r = sys_openat2(root, path, flags | O_CLOEXEC,
				RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	return (int)r;
}

int path_open(int root, const char *path, uint64_t flags)
{
	return open_below(root, path, flags | O_PATH);
}

/* One missing directory below dir. Somebody may have made it meanwhile, but a
 * link in its place is refused. */
static int make_dir(int dir, const char *name)
{
	long r = SYS3(__NR_mkdirat, dir, name, 0755);

	if (r < 0 && r != -EEXIST)
		return (int)r;
	return (int)sys_openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

static int make_file(int dir, const char *name)
{
	long r = sys_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (r < 0 && r != -EEXIST)
		return (int)r;
	if (r >= 0)
		sys_close((int)r);
	return (int)sys_openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
}

/* The directory that holds the last component, by walking down to it and
 * making what is missing. */
static int walk_to(int root, const char *path, size_t len)
{
	char part[MAX_PATH + 1];
	size_t at = 1, end;
	int dir = open_below(root, "/", O_PATH | O_DIRECTORY);

	for (; at < len && dir >= 0; at = end + 1) {
		int next;

		for (end = at; end < len && path[end] != '/'; end++)
			;
		memcpy(part, path, end);
		part[end] = 0;
		next = open_below(root, part, O_PATH | O_DIRECTORY);
		if (next == -ENOENT) {
			test_pause(root, part);
#ifdef WEAKEN_MAKE /* test/escape */
			sys_close(dir);
			dir = (int)sys_openat(root, ".", O_PATH | O_CLOEXEC, 0);
			SYS3(__NR_mkdirat, root, part + 1, 0755);
			next = (int)sys_openat(root, part + 1, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
#else
			next = make_dir(dir, part + at);
#endif
		}
		sys_close(dir);
		dir = next;
	}
	return dir;
}

void path_forget(struct init *in)
{
	if (in->parent >= 0)
		sys_close(in->parent);
	in->parent = -1;
}

/* As most operations are about the directory of the one before, its descriptor
 * is kept: the result is not the caller's to close. path was checked by the
 * decoder: absolute, no "." or "..", not too long. */
int path_parent(struct init *in, const char *path, const char **name)
{
	char dir[MAX_PATH + 1];
	size_t slash = strlen(path);

	while (path[slash] != '/')
		slash--;
	*name = path + slash + 1;
	if (in->parent >= 0 && in->parent_len == slash &&
	    memcmp(in->parent_path, path, slash) == 0)
		return in->parent;
	path_forget(in);
	memcpy(dir, path, slash + 1);
	dir[slash ? slash : 1] = 0;
	in->parent = open_below(init_root(in), dir, O_PATH | O_DIRECTORY);
	if (in->parent == -ENOENT)
		in->parent = walk_to(init_root(in), dir, slash);
	in->parent_path = path;
	in->parent_len = slash;
	return in->parent;
}

int path_make(struct init *in, const char *path, uint32_t create)
{
	const char *name;
	int fd = path_open(init_root(in), path, 0);
	int dir;

	/* What is there may be the kept directory, under another name. */
	if (fd >= 0)
		path_forget(in);
	if (fd != -ENOENT || create == CREATE_NONE)
		return fd;
	dir = path_parent(in, path, &name);
	if (dir < 0)
		return dir;
	return create == CREATE_DIR ? make_dir(dir, name) : make_file(dir, name);
}
