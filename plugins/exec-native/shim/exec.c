/*
 * exec.c - the last steps of the init: its descriptors, its signals, its
 * directory, its program.
 */
#include "shim.h"

/* Enters the directory and makes sure that it is one of the container: a
 * descriptor of the host's as working directory would be a way out. */
static int enter(const char *path)
{
	char where[MAX_PATH + 1];
	long r = SYS1(__NR_chdir, path);

	if (r < 0)
		return (int)r;
	r = SYS2(__NR_getcwd, where, sizeof where);
	if (r < 0)
		return (int)r;
#ifdef WEAKEN_CWD /* test/escape */
	return 0;
#endif
	return where[0] == '/' ? 0 : -EXDEV;
}

int op_chdir(struct init *in, const struct op *op)
{
	int r = enter(op->chdir.path.s), fd;

	if (r != -ENOENT || !op->chdir.create)
		return r;
	fd = path_make(in, op->chdir.path.s, CREATE_DIR);
	if (fd < 0)
		return fd;
	if (op->chdir.uid || op->chdir.gid)
		r = (int)SYS5(__NR_fchownat, fd, "", op->chdir.uid, op->chdir.gid, AT_EMPTY_PATH);
	else
		r = 0;
	sys_close(fd);
	return r < 0 ? r : enter(op->chdir.path.s);
}

/* Whether it is the null device, whose inode would be the host's. */
int is_null(int fd)
{
	struct statx st = { 0 };

	return SYS5(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 &&
	       (st.stx_mode & S_IFMT) == S_IFCHR && st.stx_rdev_major == 1 && st.stx_rdev_minor == 3;
}

/* The container's own /dev/null, and really that one: through a descriptor of
 * the host's device the program could change the host's inode. */
static int open_null(void)
{
	long fd = sys_openat(AT_FDCWD, "/dev/null", O_RDWR | O_NOFOLLOW | O_NOCTTY, 0);

	if (fd < 0 || is_null((int)fd))
		return (int)fd;
	sys_close((int)fd);
	return -ENODEV;
}

static int place_streams(struct init *in)
{
	for (int i = 0; i < 3; i++) {
		int fd = in->console >= 0 ? in->console : in->std[i];
		long r = fd;

		/* A caller's may be the host's null device. */
		if (fd < 0 || (in->leaving && is_null(fd))) {
			sys_close(i); /* for a place below whatever limit the program has */
			r = open_null();
			if (r < 0 && fd >= 0)
				r = fd; /* this container has none */
		}
		if (r >= 0 && r != i)
			r = SYS3(__NR_dup3, r, i, 0);
		if (r < 0)
			return (int)r;
	}
	return 0;
}

/* What the program gets beside its streams, from 3 on. All of it is first moved
 * out of the way, the socket too. */
static int place_kept(struct init *in)
{
	struct blob keep = in->keep;
	int high[MAX_KEEP], first = 3 + (int)keep.count, r;

	for (uint32_t i = 0; i < in->keep.count; i++) {
		high[i] = (int)sys_fcntl(in->files[blob_u32(&keep)], F_DUPFD_CLOEXEC, first);
		if (high[i] < 0)
			return high[i];
	}
	r = (int)sys_fcntl(in->sync, F_DUPFD_CLOEXEC, first);
	if (r < 0)
		return r;
	sys_close(in->sync);
	in->sync = r;
	for (int i = 0; i < (int)in->keep.count; i++) {
		r = (int)SYS3(__NR_dup3, high[i], 3 + i, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Everything is closed but 0, 1, 2, what is kept and the socket to the monitor,
 * which exec closes; merely marked, other descriptors could still be named in a
 * path. */
static int close_rest(int sync, int first)
{
	long r = 0;

#ifdef WEAKEN_SWEEP /* test/escape */
	return 0;
#endif
	if (sync > first)
		r = SYS3(__NR_close_range, first, sync - 1, 0);
	if (r == 0)
		r = SYS3(__NR_close_range, sync + 1, ~0u, 0);
	return (int)r;
}

int op_sweep(struct init *in)
{
	struct report final = { .kind = REPORT_FINAL };
	struct pollfd peer = { .fd = in->sync };
	struct __kernel_timespec now = { 0 };
	int r = place_streams(in);

	if (r == 0 && in->keep.count)
		r = place_kept(in);
	if (r == 0)
		r = close_rest(in->sync, 3 + (int)in->keep.count);
	if (in->closing && (r == -ENOSYS || r == -EPERM))
		r = 0;
	in->root = in->proc = in->mask_dir = in->parent = -1;
	if (r < 0)
		return r;
	ignore_signals(0);
	if (!in->umask_set)
		SYS1(__NR_umask, 022);
	if (in->leaving) {
		report_send(in->sync, &final, -1); /* whom we tell may have gone */
		return 0;
	}
	/* Changed ids have cleared it. If the monitor died before, there is
	 * nobody left to tell. */
	kill_on_parents_death(in);
	SYS5(__NR_ppoll, &peer, 1, &now, 0, 0);
	if (peer.revents & POLLHUP)
		sys_exit(125);
	return report_send(in->sync, &final, -1);
}

static const char **fill(const char **to, struct blob list)
{
	for (uint32_t i = 0; i < list.count; i++)
		*to++ = blob_str(&list).s;
	*to++ = NULL;
	return to;
}

/* The room is there from the start: the program's limits may leave none for more. */
const char **words_of(struct blob args, struct blob env, const char ***envp)
{
	static const char *words[2 * (MAX_ARGS + 1)];

	*envp = fill(words, args);
	fill(*envp, env);
	return words;
}

/* As execvp: a name that is not there leaves the next one to try, one that may
 * not be executed is remembered. */
int op_exec(struct init *in, const struct op *op)
{
	struct blob paths = op->exec.paths;
	const char **envp, **argv = words_of(op->exec.args, op->exec.env, &envp);
	int r = -ENOENT, denied = 0;

	(void)in;
	for (uint32_t i = 0; i < paths.count; i++) {
		struct str path = blob_str(&paths);

		r = (int)SYS3(__NR_execve, path.s, argv, envp);
		if (r == -EACCES)
			denied = 1;
		else if (r != -ENOENT && r != -ENOTDIR)
			return r;
	}
	return denied ? -EACCES : r;
}
