/*
 * launch.c - stages 0 to 3 in the monitor: its settings, the pipes, the clone
 * of the init (through a joiner where namespaces are joined first), its maps.
 */
#include "monitor.h"

static int take_lock(int fd)
{
	M.lock = fd;
	return (int)SYS2(__NR_flock, fd, LOCK_EX | LOCK_NB);
}

static int take_settings(const struct op *op)
{
	M.set = op->monitor;
	memcpy(M.boot_id, op->monitor.boot_id, sizeof M.boot_id);
	M.set.boot_id = M.boot_id;
	M.rec.run = M.set.run;
	memcpy(M.rec.boot_id, M.boot_id, sizeof M.rec.boot_id);
	return 0;
}

static int apply(const struct op *op, const int *files)
{
	switch (op->kind) {
	case OP_MONITOR:
		return take_settings(op);
	case OP_SHIM_CGROUP: /* a v2 cgroup was entered by the clone, or all were */
		return op->dir || M.home ? 0 : write_all(files[op->fd], "0", 1);
	case OP_LOCK:
		return take_lock(files[op->fd]);
	case OP_RECORD:
		M.record = files[op->fd];
		return 0;
	case OP_LISTEN:
		M.listen = files[op->fd];
		return (int)sys_fcntl(M.listen, F_SETFL, O_RDWR | O_NONBLOCK);
	case OP_LOG:
		return log_open(op, files);
	case OP_DEADLINE:
		M.limit_ms = op->number;
		return 0;
	case OP_LOG_POLICY:
		return log_policy(op);
	case OP_OWNER:
		M.owned = 1;
		M.owner[0] = op->owner.uid;
		M.owner[1] = op->owner.gid;
		return 0;
	case OP_OOM_COUNTER:
		M.oom = files[op->fd];
		M.oom_before = oom_count();
		return 0;
	}
	return -ENOSYS;
}

/* Stage 0. On failure op is the one that failed. */
int setup(const struct plan *plan, const int *files, struct op *op)
{
	struct walk w = { .plan = plan, .at = PLAN_HEADER };

	while (plan_next(&w, op) > 0 && op->stage == STAGE_MONITOR) {
		int r = apply(op, files);

		if (r < 0 && !op->optional)
			return r;
	}
	return 0;
}

/* A pipe whose end in the monitor does not block. */
static int make_pipe(int *ours, int *theirs, int ours_is)
{
	int ends[2];
	long r = SYS2(__NR_pipe2, ends, O_CLOEXEC);

	if (r < 0)
		return (int)r;
	*ours = ends[ours_is];
	*theirs = ends[!ours_is];
	return (int)sys_fcntl(*ours, F_SETFL, O_NONBLOCK);
}

static int make_streams(struct init *in)
{
	int r = 0;

	if (M.set.flags & TERMINAL)
		return 0;
	if (M.set.flags & OPEN_STDIN)
		r = make_pipe(&M.stdin_fd, &in->std[0], 1);
	for (int i = 0; i < 2 && r >= 0; i++)
		r = make_pipe(&M.out[i].fd, &in->std[i + 1], 0);
	for (int i = 0; i < 3 && M.owned && r >= 0; i++)
		if (in->std[i] >= 0)
			r = (int)SYS3(__NR_fchown, in->std[i], M.owner[0], M.owner[1]);
	return r;
}

/* The monitor's own descriptors are none of the init's. */
static void become_init(struct init *in)
{
	int ours[] = { M.control, M.sync, M.stdin_fd, M.out[0].fd, M.out[1].fd, M.log.fd };

	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		if (ours[i] >= 0)
			sys_close(ours[i]);
	ring_forget();
	init_main(in);
}

/* The joiner: stage 1, then the clone as the monitor's own child. */
static void join_main(struct init *in, const struct op *clone)
{
	struct op made_in = *clone; /* in the cgroup that the joiner was cloned into */
	struct walk w = { .plan = in->plan, .at = PLAN_HEADER };
	struct report made = { .kind = REPORT_INIT };
	struct op op;

	sys_prctl(PR_SET_PDEATHSIG, SIG_KILL, 0, 0);
	while (plan_next(&w, &op) > 0 && op.stage <= STAGE_JOIN) {
		int r = op.stage == STAGE_JOIN ? init_run(in, &op) : 0;

		if (r < 0 && !op.optional)
			init_fail(in, &op, r);
	}
	/* A procfs of the old pid namespace is none of the init's. */
	if (in->proc >= 0)
		sys_close(in->proc);
	in->proc = -1;
	made_in.fd = NO_FD;
	made.pid = clone_init(&made_in, in->files, CLONE_PARENT);
	if (made.pid == 0)
		become_init(in);
	if (made.pid < 0)
		init_fail(in, clone, made.pid);
	report_send(in->sync, &made, -1);
	sys_exit(0);
}

/* Waits for the joiner's word, which may never come: a joiner of a frozen v1
 * cgroup hangs, and dies only when that thaws. 0 when the driver gave up. */
static int joiner_speaks(void)
{
	while (M.phase != PHASE_CLOSED) {
		struct pollfd p[2] = { { M.sync, POLLIN, 0 }, { M.control, POLLIN, 0 } };

		if (SYS5(__NR_ppoll, p, 2, 0, 0, 0) < 0)
			continue;
		if (p[0].revents)
			return 1;
		driver_says();
	}
	return 0;
}

/* Runs the joiner to its end: the init's pid, or -1 when all was reported. */
static int through_joiner(struct init *in, const struct op *clone)
{
	struct clone_args args = { .exit_signal = SIG_CHLD };
	struct waitinfo info = { 0 };
	struct report r;
	int passed, got, joiner;

	/* A v2 cgroup may be out of reach once the namespaces are joined. */
	if (clone->fd != NO_FD) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (unsigned)in->files[clone->fd];
	}
	joiner = (int)SYS2(__NR_clone3, &args, sizeof args);
	if (joiner == 0)
		join_main(in, clone);
	if (joiner < 0) {
		monitor_fail(STAGE_JOIN, 0, 0, joiner);
		return -1;
	}
	sys_close(in->sync); /* so that its death is an end of the socket */
	in->sync = -1;
	if (!joiner_speaks()) {
		SYS2(__NR_kill, joiner, SIG_KILL);
		return -1;
	}
	got = report_receive(M.sync, &r, &passed, 0);
	while (SYS5(__NR_waitid, P_PID, joiner, &info, WEXITED, 0) == -EINTR)
		;
	if (got == 1 && r.kind == REPORT_INIT)
		return r.pid;
	if (got == 1 && r.kind == REPORT_ERROR)
		monitor_fail(r.stage, r.op, r.index, -r.err);
	else
		monitor_fail(STAGE_JOIN, 0, 0, -ESRCH);
	return -1;
}

static int init_proc_write(const struct op *op)
{
	int proc = (int)sys_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	int r = proc < 0 ? proc : parent_write(proc, M.pid, op);

	if (proc >= 0)
		sys_close(proc);
	return r;
}

void look_through(const struct plan *plan, struct parts *has)
{
	struct walk w = { .plan = plan, .at = PLAN_HEADER };
	struct op op;

	while (plan_next(&w, &op) > 0) {
		has->joins += op.stage == STAGE_JOIN;
		has->parents += op.stage == STAGE_PARENT;
		has->labels += op.kind == OP_LABEL;
		has->filters += op.kind == OP_SECCOMP && op.stage == STAGE_EXEC;
		if (op.kind == OP_CLONE)
			has->clone = op;
	}
}

/* Stage 3, then the init may go on. */
static int help_init(const struct plan *plan)
{
	struct walk w = { .plan = plan, .at = PLAN_HEADER };
	struct op op;

	while (plan_next(&w, &op) > 0 && op.stage <= STAGE_PARENT) {
		int r = op.stage == STAGE_PARENT ? init_proc_write(&op) : 0;

		if (r < 0 && !op.optional) {
			monitor_fail(op.stage, op.kind, op.index, r);
			return -1;
		}
	}
	sys_write(M.sync, "g", 1);
	return 0;
}

static void close_theirs(struct init *in)
{
	for (int i = 0; i < 3; i++)
		if (in->std[i] >= 0)
			sys_close(in->std[i]);
	if (in->sync >= 0)
		sys_close(in->sync);
}

/* The init by a clone of now: its pid, or a negative errno when all was
 * reported. */
static int make_init(struct init *in, const struct parts *has)
{
	int pair[2];
	int r = (int)SYS4(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);

	if (r < 0) {
		monitor_fail(STAGE_MONITOR, 0, 0, r);
		return r;
	}
	M.sync = pair[0];
	in->sync = pair[1];
	if (has->joins)
		return through_joiner(in, &has->clone);
	r = clone_init(&has->clone, in->files, 0);
	if (r == 0)
		become_init(in);
	if (r < 0)
		monitor_fail(STAGE_CLONE, OP_CLONE, has->clone.index, r);
	return r;
}

/* The same with the init that was made before the plan was there, which is
 * given what it lacks. One that does not fit makes way for another. */
static int take_early(struct init *in, const struct parts *has, struct early *e)
{
	int r;

	if (has->joins || e->what & EARLY_LEAVE || !early_fits(e, &has->clone)) {
		early_drop(e);
		return make_init(in, has);
	}
	M.sync = e->sync;
	r = early_hand_over(e, in->plan, in->files, in->std);
	if (r == 0)
		return e->pid;
	monitor_fail(STAGE_CLONE, OP_CLONE, has->clone.index, r);
	return r;
}

void launch(const struct plan *plan, const int *files, struct early *e)
{
	struct init in = { .plan = plan, .files = files, .sync = -1, .std = { -1, -1, -1 },
			   .console = -1, .root = -1, .proc = -1, .mask_dir = -1, .parent = -1,
			   .held = -1 };
	struct parts has = { 0 };
	struct report made = { .kind = REPORT_INIT };
	int r = make_streams(&in);

	look_through(plan, &has);
	in.must_wait = has.joins || has.parents;
	in.labels = has.labels;
	M.filtered = has.filters != 0;
	if (r < 0)
		monitor_fail(STAGE_MONITOR, 0, 0, r);
	else
		r = e->pid ? take_early(&in, &has, e) : make_init(&in, &has);
	close_theirs(&in);
	if (r < 0)
		return;
	M.pid = r;
	M.rec.pid = r;
	M.pidfd = (int)SYS2(__NR_pidfd_open, M.pid, 0);
	if (M.pidfd < 0) {
		monitor_fail(STAGE_CLONE, OP_CLONE, has.clone.index, M.pidfd);
		return;
	}
	write_record(STATE_MADE);
	made.pid = M.pid;
	if (!(M.set.flags & QUIET))
		report_to_driver(&made);
	if (in.must_wait)
		help_init(plan);
}
