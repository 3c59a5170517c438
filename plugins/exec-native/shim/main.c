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
};

struct message {
	uint32_t magic;
	uint16_t kind, zero;
	uint32_t a, b;
};
_Static_assert(sizeof(struct message) == SEND_HEADER, "message");

static int take_files(struct incoming *in, const struct message *head, const struct cmsghdr *c,
		      size_t room)
{
	size_t n = 0;

	if (room >= sizeof *c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len >= sizeof *c && c->cmsg_len <= room)
		n = (c->cmsg_len - sizeof *c) / sizeof(int);
	if (n != head->b || head->a != in->files || in->files + n > MAX_FILES)
		return -EINVAL;
	memcpy(files + in->files, c + 1, n * sizeof(int));
	in->files += (uint32_t)n;
	return 0;
}

static int take_piece(struct incoming *in, const struct message *head, size_t n)
{
	if (!in->plan) {
		if (head->b < PLAN_HEADER || head->b > MAX_PLAN)
			return -E2BIG;
		in->plan = sys_mmap(head->b);
		if (sys_failed(in->plan))
			return -ENOMEM;
		in->len = head->b;
	}
	if (head->b != in->len || head->a != in->have || n > in->len - in->have)
		return -EINVAL;
	return 0;
}

/* One message: 1 when the plan is whole, 0 when more must come. */
static int receive(struct incoming *in)
{
	static union {
		struct cmsghdr head;
		uint8_t room[sizeof(struct cmsghdr) + MAX_PASSED * sizeof(int) + 8];
	} control;
	struct message head;
	struct iovec parts[2] = { { &head, sizeof head }, { in->piece, MAX_PIECE } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2,
			    .msg_control = &control, .msg_controllen = sizeof control };
	long n;
	int r;

	do
		n = SYS3(__NR_recvmsg, CONTROL_FD, &m, MSG_CMSG_CLOEXEC);
	while (n == -EINTR);
	if (n == 0)
		return -EPIPE;
	if (n < 0)
		return (int)n;
	if (n < (long)sizeof head || head.magic != SEND_MAGIC || (m.msg_flags & (MSG_CTRUNC | MSG_TRUNC)))
		return -EPROTO;
	n -= (long)sizeof head;
	if (head.kind == SEND_FILES)
		return take_files(in, &head, &control.head, m.msg_controllen);
	if (head.kind != SEND_PLAN || m.msg_controllen)
		return -EPROTO;
	r = take_piece(in, &head, (size_t)n);
	if (r < 0)
		return r;
	memcpy(in->plan + in->have, in->piece, (size_t)n);
	in->have += (uint32_t)n;
	return in->have == in->len;
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
	SYS3(__NR_close_range, CONTROL_FD + 1, ~0u, 0);
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
	if (r == 0)
		r = plan_check(&plan, &why);
	if (r < 0)
		return refuse(&why);
	if (leaves(&plan))
		leave_main(&plan, files);
	cgroup = shim_cgroup(&plan);
	if (cgroup >= 0) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (unsigned)cgroup;
	}
	pid = SYS2(__NR_clone3, &args, sizeof args);
	if (pid == 0)
		monitor_main(&plan, files);
	if (pid < 0) {
		why = (struct refusal){ .err = (int)pid };
		return refuse(&why);
	}
	return 0;
}
