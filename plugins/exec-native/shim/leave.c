/*
 * leave.c - the leaving mode, for an OCI runtime: nobody of ours stays. The
 * helper joins namespaces itself, clones the init as the driver's own child and
 * leaves; the init reports to the driver, waits at a gate if the plan has one,
 * and reports to whoever opens that.
 */
#include "shim.h"

enum { POINTLESS = 125, ORDER_MS = 10000 };

void leave_settings(struct init *in)
{
	struct walk w = { .plan = in->plan, .at = PLAN_HEADER };
	struct op op;

	plan_next(&w, &op);
	in->keep = op.leave.keep;
	for (int i = 0; i < 3; i++)
		in->std[i] = op.leave.std[i] == NO_FD ? -1 : in->files[op.leave.std[i]];
}

/* Stage 1, in the helper. Where stage 3 follows, /proc must be the host's. */
static void join_first(struct init *in)
{
	struct walk w = { .plan = in->plan, .at = PLAN_HEADER };
	struct op op;

	while (plan_next(&w, &op) > 0 && op.stage <= STAGE_JOIN) {
		int r = op.stage == STAGE_JOIN ? init_run(in, &op) : 0;

		if (r < 0 && !op.optional)
			init_fail(in, &op, r);
	}
	if (in->proc >= 0)
		sys_close(in->proc);
	in->proc = -1;
}

/* Stage 3: what only somebody outside may write. */
static void help(struct init *in, int proc, int pid, int go)
{
	struct walk w = { .plan = in->plan, .at = PLAN_HEADER };
	struct op op;

	while (plan_next(&w, &op) > 0 && op.stage <= STAGE_PARENT) {
		int r = op.stage != STAGE_PARENT ? 0 : proc < 0 ? proc : parent_write(proc, pid, &op);

		if (r < 0 && !op.optional)
			init_fail(in, &op, r); /* and the init ends with the pipe */
	}
	sys_write(go, "g", 1);
}

/* The init, made now or before: its pid, or a negative errno. go is how it is
 * told that stage 3 is done. */
static int make_init(struct init *in, struct parts *has, struct early *e, int proc, int *go)
{
	int ends[2], pid, r;

	if (e->pid) {
		if (has->joins || !(e->what & EARLY_LEAVE) || !early_fits(e, &has->clone))
			return -EINVAL;
		*go = e->sync;
		r = early_hand_over(e, in->plan, in->files, in->std);
		return r < 0 ? r : e->pid;
	}
	if (has->parents) {
		r = (int)SYS2(__NR_pipe2, ends, O_CLOEXEC);
		if (r < 0)
			return r;
		in->held = ends[0];
		*go = ends[1];
	}
	pid = clone_init(&has->clone, in->files, CLONE_PARENT);
	if (pid)
		return pid;
	if (proc >= 0)
		sys_close(proc);
	if (*go >= 0)
		sys_close(*go); /* so that the helper's death is an end of the pipe */
	init_main(in);
}

void leave_main(const struct plan *plan, const int *files, struct early *e)
{
	struct init in = { .plan = plan, .files = files, .sync = CONTROL_FD, .console = -1, .root = -1,
			   .proc = -1, .mask_dir = -1, .parent = -1, .held = -1, .leaving = 1 };
	struct report made = { .kind = REPORT_INIT };
	struct parts has = { 0 };
	int go = -1, proc = -1;

	/* Whose end means that the program was executed. */
	sys_fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC);
	leave_settings(&in);
	look_through(plan, &has);
	in.labels = has.labels;
	in.must_wait = has.parents != 0;
	if (has.parents)
		proc = (int)sys_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (has.joins)
		join_first(&in);
	made.pid = make_init(&in, &has, e, proc, &go);
	if (made.pid < 0)
		init_fail(&in, &has.clone, made.pid);
	if (!e->pid) /* that one was told when it was made */
		report_send(CONTROL_FD, &made, -1);
	if (has.parents)
		help(&in, proc, made.pid, go);
	sys_exit(0);
	__builtin_unreachable();
}

/* The driver's order: go on, or not. Its end is the start's. */
int leave_wait(struct init *in, const struct op *op)
{
	struct message o = { 0 };
	long n = sys_read(in->sync, &o, sizeof o);

	if (n <= 0)
		sys_exit(POINTLESS);
	if (n != sizeof o || o.magic != SEND_MAGIC || o.kind != SEND_GO)
		init_fail(in, op, -ECANCELED);
	return 0;
}

/* One who has connected must say go in time. That it may is clear from where
 * the socket is: in a directory of mode 0700, which the container does not see.
 * Its uid would tell nothing in a user namespace. */
static int admit(int fd)
{
	struct pollfd says = { .fd = fd, .events = POLLIN };
	struct __kernel_timespec patience = { ORDER_MS / 1000, 0 };
	struct message o = { 0 };

	SYS5(__NR_ppoll, &says, 1, &patience, 0, 0);
	return SYS6(__NR_recvfrom, fd, &o, sizeof o, MSG_DONTWAIT, 0, 0) == sizeof o &&
	       o.magic == SEND_MAGIC && o.kind == SEND_GO;
}

/* Tells the creator that all is made, lets it go, and waits for somebody else
 * to open. Only that one hears from here on whether the program was executed. */
int op_start_gate(struct init *in, const struct op *op)
{
	struct report r = { .kind = REPORT_GATE, .stage = op->stage, .op = op->kind,
			    .index = op->index };
	int listen = in->files[op->fd], err = report_send(in->sync, &r, -1);

	if (err < 0)
		return err;
	sys_close(in->sync);
	in->sync = -1;
	/* It may take days until somebody comes, and other programs may be run in
	 * the container meanwhile. */
	close_files_of(in, STAGE_CHILD, STAGE_COVER);
	path_forget(in);
	in->root = -1; /* which was one of them; the way to it is "/" now */
	if (in->mask_dir >= 0)
		sys_close(in->mask_dir);
	in->mask_dir = -1;
	if (in->proc >= 0 && !in->labels) {
		sys_close(in->proc);
		in->proc = -1;
	}
	while (in->sync < 0) {
		struct pollfd calls = { .fd = listen, .events = POLLIN };
		int fd;

		SYS5(__NR_ppoll, &calls, 1, 0, 0, 0);
		fd = (int)SYS4(__NR_accept4, listen, 0, 0, SOCK_CLOEXEC);
		if (fd >= 0 && admit(fd))
			in->sync = fd;
		else if (fd >= 0)
			sys_close(fd);
	}
	sys_close(listen); /* whoever comes later finds nobody */
	return 0;
}
