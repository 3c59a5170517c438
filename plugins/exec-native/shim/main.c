/*
 * main.c - the helper: takes plan and descriptors from the driver, checks all
 * of it, forks the monitor and leaves.
 */
#include "shim.h"

static int files[MAX_FILES];

struct incoming {
	uint8_t *plan;
	uint8_t *piece; /* unmapped before the fork: the monitor stays small */
	uint32_t len, have, files;
	struct early early;
};

/* One message, and how many descriptors came with it into fds (MAX_PASSED). */
int take_message(int fd, struct message *head, void *data, size_t room, long *n, int *fds)
{
	static union {
		struct cmsghdr head;
		uint8_t room[sizeof(struct cmsghdr) + MAX_PASSED * sizeof(int) + 8];
	} control;
	struct iovec parts[2] = { { head, sizeof *head }, { data, room } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = room ? 2 : 1,
			    .msg_control = &control, .msg_controllen = sizeof control };
	const struct cmsghdr *c = &control.head;
	int passed = 0;

	do
		*n = SYS3(__NR_recvmsg, fd, &m, MSG_CMSG_CLOEXEC);
	while (*n == -EINTR);
	if (*n == 0)
		return -EPIPE;
	if (*n < 0)
		return (int)*n;
	if (*n < (long)sizeof *head || head->magic != SEND_MAGIC ||
	    (m.msg_flags & (MSG_CTRUNC | MSG_TRUNC)))
		return -EPROTO;
	*n -= (long)sizeof *head;
	if (m.msg_controllen >= sizeof *c && c->cmsg_level == SOL_SOCKET &&
	    c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= sizeof *c && c->cmsg_len <= m.msg_controllen)
		passed = (int)((c->cmsg_len - sizeof *c) / sizeof(int));
	memcpy(fds, c + 1, (size_t)passed * sizeof(int));
	return passed;
}

static int take_files(struct incoming *in, const struct message *head, const int *fds, int n)
{
	if ((uint32_t)n != head->b || head->a != in->files || in->files + (uint32_t)n > MAX_FILES)
		return -EINVAL;
	memcpy(files + in->files, fds, (size_t)n * sizeof(int));
	in->files += (uint32_t)n;
	return 0;
}

static int take_piece(struct incoming *in, const struct message *head, size_t n)
{
	if (!in->len) {
		if (head->b < PLAN_HEADER || head->b > MAX_PLAN)
			return -E2BIG;
		if (!in->early.mapped)
			in->plan = sys_mmap(head->b);
		if (sys_failed(in->plan))
			return -ENOMEM;
		in->len = head->b;
	}
	if (head->b != in->len || head->a != in->have || n > in->len - in->have)
		return -EINVAL;
	memcpy(in->plan + in->have, in->piece, n);
	in->have += (uint32_t)n;
	return in->have == in->len;
}

/* The init is to be made before the plan is known, which it will find in
 * memory shared with it. Of this the helper leaves the rest to the monitor. */
static int begin_early(struct incoming *in, const struct message *head, const int *fds, int n)
{
	struct early *e = &in->early;
	int at = 0;

	if (e->mapped || in->len || in->files || (e->standby && head->b & EARLY_LEAVE))
		return -EPROTO;
	e->flags = head->a;
	e->what = head->b;
	e->cgroups[0] = e->what & EARLY_SHIM_CGROUP && at < n ? fds[at++] : -1;
	e->cgroups[1] = e->what & EARLY_CGROUP && at < n ? fds[at++] : -1;
	if (at != n)
		return -EINVAL;
	in->plan = (void *)SYS6(__NR_mmap, 0, MAX_PLAN, PROT_READ | PROT_WRITE,
				MAP_ANON_SHARED | MAP_NORESERVE, -1, 0);
	if (sys_failed(in->plan))
		return -ENOMEM;
	e->mapped = MAX_PLAN;
	return early_start(e, in->plan);
}

/* The monitor is to be there before anything else is known. */
static int begin_standby(struct incoming *in, const struct message *head, const int *fds, int n)
{
	int home = (head->b & EARLY_SHIM_CGROUP) != 0;

	if (in->early.standby || in->early.mapped || in->len || in->files)
		return -EPROTO;
	return n < home ? -EINVAL : early_standby(&in->early, home, fds, n);
}

/* One message: 1 when the plan is whole, 0 when more must come. */
static int receive(struct incoming *in)
{
	static int fds[MAX_PASSED + 2];
	struct message head;
	long n;
	int passed = take_message(CONTROL_FD, &head, in->piece, MAX_PIECE, &n, fds);

	if (passed < 0)
		return passed;
	if (head.kind == SEND_FILES)
		return take_files(in, &head, fds, passed);
	if (head.kind == SEND_EARLY)
		return begin_early(in, &head, fds, passed);
	if (head.kind == SEND_STANDBY)
		return begin_standby(in, &head, fds, passed);
	if (head.kind != SEND_PLAN || passed)
		return -EPROTO;
	return take_piece(in, &head, (size_t)n);
}

static int refuse(const struct refusal *why)
{
	struct report r = { .kind = REPORT_ERROR, .stage = STAGE_MONITOR, .op = why->kind,
			    .index = why->index, .err = -why->err, .flags = FLAG_FAILED };

	report_send(CONTROL_FD, &r, -1);
	return 125;
}

/* A v2 cgroup of the shims is entered by the clone itself. */
static int shim_cgroup(const struct plan *plan)
{
	struct walk w = { .plan = plan, .at = PLAN_HEADER };
	struct op op;

	while (plan_next(&w, &op) > 0 && op.stage == STAGE_MONITOR)
		if (op.kind == OP_SHIM_CGROUP && op.dir)
			return files[op.fd];
	return -1;
}

static int leaves(const struct plan *plan)
{
	struct walk w = { .plan = plan, .at = PLAN_HEADER };
	struct op op;

	return plan_next(&w, &op) > 0 && op.kind == OP_LEAVE;
}

/* The driver may have been started with signals ignored or blocked. */
static void reset_signals(void)
{
	uint64_t none[8] = { 0 };

	for (int sig = 1; sig <= SIGNALS; sig++)
		SYS4(__NR_rt_sigaction, sig, none, 0, 8);
	SYS4(__NR_rt_sigprocmask, 2, none, 0, 8);
}

int shim_main(void)
{
	struct incoming in = { 0 };
	struct plan plan;
	struct refusal why = { 0 };
	struct clone_args args = { .exit_signal = SIG_CHLD };
	int cgroup, r = 0;
	long pid;

	/* Whatever the driver's starter had left open is nobody's here. */
#ifndef WEAKEN_SWEEP /* test/escape */
	SYS3(__NR_close_range, CONTROL_FD + 1, ~0u, 0);
#endif
	reset_signals();
	sys_prctl(PR_SET_DUMPABLE, 0, 0, 0);
	sys_prctl(PR_SET_NAME, (unsigned long)"gantry-shim", 0, 0);
	in.piece = sys_mmap(MAX_PIECE);
	if (sys_failed(in.piece))
		r = -ENOMEM;
	while (r == 0)
		r = receive(&in);
	SYS2(__NR_munmap, in.piece, MAX_PIECE);
	if (r > 0)
		r = plan_open(&plan, in.plan, in.len, in.files);
	why.err = r;
	if (r < 0 && in.early.mapped && !in.len)
		why.kind = OP_CLONE; /* before there was a plan */
	if (r == 0)
		r = plan_check(&plan, &why);
	if (r < 0)
		return refuse(&why);
	why.err = -EINVAL;
	if (leaves(&plan) && in.early.standby)
		return refuse(&why);
	if (leaves(&plan))
		leave_main(&plan, files, &in.early);
	cgroup = shim_cgroup(&plan);
	if (in.early.mapped || in.early.standby) { /* we are the monitor */
		if (cgroup >= 0 && !in.early.home && !(in.early.what & EARLY_SHIM_CGROUP))
			return refuse(&why);
		monitor_main(&plan, files, &in.early);
	}
	if (cgroup >= 0) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (unsigned)cgroup;
	}
	pid = SYS2(__NR_clone3, &args, sizeof args);
	if (pid == 0)
		monitor_main(&plan, files, &in.early);
	if (pid < 0) {
		why = (struct refusal){ .err = (int)pid };
		return refuse(&why);
	}
	return 0;
}
