/*
 * init.c - the interpreter: stages 1 (in the joiner) and 4 to 9 (in the init),
 * one operation after another, the first failure reported and final.
 */
#include "shim.h"

void init_fail(struct init *in, const struct op *op, int err)
{
	struct report r = { .kind = REPORT_ERROR, .err = -err, .flags = FLAG_FAILED };

	if (op) {
		r.stage = op->stage;
		r.op = op->kind;
		r.index = op->index;
		r.signal = op->kind == OP_HOOK ? in->status : 0;
	}
	report_send(in->sync, &r, -1);
	sys_exit(125);
	__builtin_unreachable();
}

/* The monitor's leave to go on. Its end, or a word that is none, ends us too. */
void init_wait(struct init *in)
{
	char go = 0;

	if (sys_read(in->held >= 0 ? in->held : in->sync, &go, 1) != 1)
		sys_exit(125);
	if (in->held >= 0)
		sys_close(in->held);
	in->held = -1;
}

/* Sync, Gate and Listener: a word, and the leave to go on. */
int tell_and_wait(struct init *in, const struct op *op, struct report *r)
{
	int err;

	r->stage = op->stage;
	r->op = op->kind;
	r->index = op->index;
	err = report_send(in->sync, r, -1);
	if (err == 0 && in->leaving)
		return leave_wait(in, op);
	if (err == 0)
		init_wait(in);
	return err;
}

/* The parent-death signal is first aid where a monitor stays. */
void kill_on_parents_death(const struct init *in)
{
	if (!in->leaving)
		sys_prctl(PR_SET_PDEATHSIG, SIG_KILL, 0, 0);
}

/* A change of ids or of the user namespace may have made us dumpable again. */
void forget_dumps(void)
{
#ifdef WEAKEN_DUMPABLE /* test/escape */
	sys_prctl(PR_SET_DUMPABLE, 1, 0, 0);
#else
	sys_prctl(PR_SET_DUMPABLE, 0, 0, 0);
#endif
}

int init_root(struct init *in)
{
	if (in->root < 0)
		in->root = (int)sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	return in->root;
}

/* A procfs that is attached nowhere: nothing the image or another container
 * mounts can stand in for it. */
int init_proc(struct init *in)
{
	struct blob none = { 0 };

#ifdef WEAKEN_PROC /* test/escape */
	return in->proc = path_open(init_root(in), "/proc", O_DIRECTORY);
#endif
	if (in->proc < 0)
		in->proc = make_fs("proc", &none, in->files,
				   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return in->proc;
}

/* Writes a file of procfs from inside. What the user has mounted upon the
 * container's procfs does not lie upon a private one. */
int write_own_proc(struct init *in, const char *path, const char *data, size_t n)
{
	int proc = init_proc(in), r = proc;

	if (proc >= 0)
		r = write_proc(proc, path, data, n);
	if (r != -EXDEV || !in->proc_shown)
		return r;
	sys_close(proc);
	in->proc = -1;
	in->proc_shown = 0;
	proc = init_proc(in);
	return proc < 0 ? proc : write_proc(proc, path, data, n);
}

int write_all(int fd, const void *p, size_t n)
{
	long r = sys_write(fd, p, n);

	if (r < 0)
		return (int)r;
	return (size_t)r == n ? 0 : -EIO;
}

/* Writes a file of procfs that is reached through no link and no other mount,
 * with one write, as its files want. */
int write_proc(int proc, const char *path, const char *data, size_t n)
{
	uint64_t type[16] = { 0 }; /* struct statfs; the magic comes first */
	long fd = -EAGAIN, r;

#ifdef WEAKEN_PROC
	fd = sys_openat2(proc, path, O_WRONLY | O_CLOEXEC, 0);
	type[0] = PROC_MAGIC;
	r = fd < 0 ? fd : write_all((int)fd, data, n);
	return (int)r;
#endif
	for (int i = 0; i < 128 && fd == -EAGAIN; i++)
		fd = sys_openat2(proc, path, O_WRONLY | O_CLOEXEC,
				 RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
					 RESOLVE_NO_XDEV);
	if (fd < 0)
		return (int)fd;
	r = SYS2(__NR_fstatfs, fd, type);
	if (r == 0)
		r = type[0] == PROC_MAGIC ? write_all((int)fd, data, n) : -EXDEV;
	sys_close((int)fd);
	return (int)r;
}

/* A file of /proc/PID of the init, from the process that made it. */
int parent_write(int proc, int pid, const struct op *op)
{
	char path[24 + MAX_NAME];
	size_t n = put_number(path, (uint64_t)pid);

	path[n] = '/';
	memcpy(path + n + 1, op->two.a.s, op->two.a.n + 1);
	return write_proc(proc, path, op->two.b.s, op->two.b.n);
}

static int own_proc_write(struct init *in, const struct op *op)
{
	int proc = init_proc(in);

	return proc < 0 ? proc : parent_write(proc, (int)SYS0(__NR_getpid), op);
}

static int set_rlimit(const struct op *op)
{
	struct rlimit64 lim = { op->rlimit.soft, op->rlimit.hard };

	return (int)SYS4(__NR_prlimit64, 0, op->rlimit.resource, &lim, 0);
}

static int join(struct init *in, const struct op *op)
{
	int r = (int)SYS2(__NR_setns, in->files[op->fd], op->flags);

	forget_dumps();
	return r;
}

static int op_process(struct init *in, const struct op *op)
{
	struct report sync = { .kind = REPORT_SYNC, .pid = (int32_t)op->number };
	struct report gate = { .kind = REPORT_GATE };

	switch (op->kind) {
	case OP_JOIN:
		return join(in, op);
	case OP_UNSHARE:
		return (int)SYS1(__NR_unshare, op->flags);
	case OP_PROC_WRITE:
		return own_proc_write(in, op);
	case OP_CGROUP:
		return write_all(in->files[op->fd], "0", 1);
	case OP_RLIMIT:
		return set_rlimit(op);
	case OP_SYNC:
		return tell_and_wait(in, op, &sync);
	case OP_GATE:
		return in->leaving ? 0 : tell_and_wait(in, op, &gate);
	case OP_START_GATE:
		return op_start_gate(in, op);
	case OP_HOOK:
		return op_hook(in, op);
	}
	return -ENOSYS;
}

/* Runs one operation. Only what came through plan_check gets here. */
int init_run(struct init *in, struct op *op)
{
	switch (op->kind) {
	case OP_PROPAGATION ... OP_FILESYSTEM:
	case OP_SET_ATTR:
	case OP_PIVOT:
	case OP_CONSOLE:
	case OP_MOVE_ROOT:
	case OP_PTY ... OP_BIND:
		return op_mount(in, op);
	case OP_AFFINITY ... OP_KEYRING:
	case OP_LABEL:
		return op_setting(in, op);
	case OP_NODE:
	case OP_SYMLINK:
		return op_file(in, op);
	case OP_HOSTNAME ... OP_LINK_UP:
		return op_cover(in, op);
	case OP_CHDIR:
		return op_chdir(in, op);
	case OP_CAP_BOUND ... OP_UMASK:
	case OP_PERSONALITY:
		return op_identity(in, op);
	case OP_SWEEP:
		return op_sweep(in);
	case OP_EXEC:
		return op_exec(in, op);
	}
	return op_process(in, op);
}

static void note(uint8_t *used, uint32_t fd)
{
	if (fd != NO_FD)
		used[fd] = 1;
}

/* Which files operations of these stages name, but for those that the program
 * is given. */
static void note_files(const struct init *in, uint8_t *used, uint8_t first, uint8_t last)
{
	struct walk w = { .plan = in->plan, .at = PLAN_HEADER };
	struct op op;

	while (plan_next(&w, &op) > 0 && op.stage <= last) {
		struct blob params = op.kind == OP_FILESYSTEM ? op.fs.params : (struct blob){ 0 };

		if (op.stage < first)
			continue;
		note(used, op.fd);
		for (uint32_t i = 0; i < params.count; i++) {
			blob_u32(&params);
			note(used, blob_u32(&params));
			blob_str(&params);
			blob_str(&params);
		}
	}
}

/* Closes the files of stages that are over and of no later one: until the exec
 * closes all, a program that already runs in the same namespaces might reach
 * what is open here. */
void close_files_of(const struct init *in, uint8_t first, uint8_t last)
{
	uint8_t used[MAX_FILES] = { 0 }, later[MAX_FILES] = { 0 };

	note_files(in, used, first, last);
	note_files(in, later, (uint8_t)(last + 1), STAGE_EXEC);
	for (uint32_t i = 0; i < in->plan->files; i++)
		if (used[i] && !later[i])
			sys_close(in->files[i]);
}

/* The init's life: from here nothing returns. */
void init_main(struct init *in)
{
	struct walk w = { .plan = in->plan, .at = PLAN_HEADER };
	struct op op = { 0 };
	int r;

	sys_prctl(PR_SET_NAME, (unsigned long)"gantry-init", 0, 0);
	kill_on_parents_death(in);
	SYS0(__NR_setsid);
	SYS1(__NR_umask, 0);
	close_files_of(in, STAGE_MONITOR, STAGE_CLONE);
	if (in->must_wait)
		init_wait(in);
	while ((r = plan_next(&w, &op)) > 0) {
		struct report warn = { .kind = REPORT_WARNING, .stage = op.stage, .op = op.kind,
				       .index = op.index };

		if (op.stage < STAGE_CHILD)
			continue;
		r = init_run(in, &op);
		if (r < 0 && !op.optional)
			init_fail(in, &op, r);
		warn.err = -r;
		if (r < 0)
			report_send(in->sync, &warn, -1);
	}
	init_fail(in, &op, r < 0 ? r : -EINVAL);
}

/* clone3 as fork: the child goes on with a copy of the stack. */
int clone_init(const struct op *op, const int *files, uint64_t flags)
{
	struct clone_args args = { .flags = op->flags | flags };

	/* With CLONE_PARENT the exit signal is the caller's own. */
	args.exit_signal = flags & CLONE_PARENT ? 0 : SIG_CHLD;
	if (op->fd != NO_FD) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (unsigned)files[op->fd];
	}
	return (int)SYS2(__NR_clone3, &args, sizeof args);
}
