/*
 * early.c - the init made while the driver still prepares the plan. Cloning
 * namespaces takes most of a millisecond, and so does the preparation: one who
 * knows the namespaces early saves the shorter of the two. The init waits on its
 * socket; the plan it finds in memory that it shares with who made it, the files
 * are sent after it.
 */
#include "shim.h"

static int files[MAX_FILES + 3];

/* What the init is told once all is there. */
struct handed {
	struct message head; /* a: the plan's length, b: files */
	int32_t std[3];      /* places of the streams behind the files; -1 */
};

/* The init's part: everything but the plan is its own by now. */
static void wait_for_plan(const struct early *e, int sync, uint8_t *memory) __attribute__((noreturn));

static void wait_for_plan(const struct early *e, int sync, uint8_t *memory)
{
	struct init in = { .sync = sync, .std = { -1, -1, -1 }, .files = files, .console = -1,
			   .root = -1, .proc = -1, .mask_dir = -1, .parent = -1, .held = -1 };
	struct handed h = { .head = { .kind = SEND_FILES } };
	struct parts has = { 0 };
	struct plan plan;
	uint32_t have = 0;

	while (h.head.kind == SEND_FILES) {
		long n;
		int passed = take_message(sync, &h.head, h.std, sizeof h.std, &n, files + have);

		/* Its maker's end, or a word that is none, ends us too. */
		if (passed < 0 || have + (uint32_t)passed > MAX_FILES + 3)
			sys_exit(125);
		have += (uint32_t)passed;
	}
	if (plan_open(&plan, memory, h.head.a, h.head.b) < 0)
		sys_exit(125);
	in.plan = &plan;
	look_through(&plan, &has);
	in.labels = has.labels;
	in.must_wait = has.parents != 0;
	if (e->what & EARLY_LEAVE) {
		in.leaving = 1;
		in.held = in.must_wait ? sync : -1;
		in.sync = CONTROL_FD;
		leave_settings(&in);
		if (!in.must_wait)
			sys_close(sync);
	} else {
		for (int i = 0; i < 3; i++)
			in.std[i] = h.std[i] < 0 ? -1 : files[h.std[i]];
	}
	init_main(&in);
}

/* In the helper, of which only the monitor goes on from here: it enters its
 * cgroups and says who it is. fds are those of the shims: the directory of
 * version 2 where home says so, and the tasks files of version 1. */
int early_standby(struct early *e, int home, const int *fds, int n)
{
	struct clone_args monitor = { .exit_signal = SIG_CHLD };
	struct report up = { .kind = REPORT_SHIM };
	long r;

	if (home) {
		monitor.flags = CLONE_INTO_CGROUP;
		monitor.cgroup = (unsigned)fds[0];
	}
	r = SYS2(__NR_clone3, &monitor, sizeof monitor);
	if (r > 0)
		sys_exit(0);
	if (r == 0)
		SYS0(__NR_setsid);
	for (int i = 0; i < n; i++) {
		if (r == 0 && i >= home)
			r = write_all(fds[i], "0", 1);
		sys_close(fds[i]);
	}
	if (r < 0)
		return (int)r;
	e->standby = 1;
	e->home = home;
	up.pid = (int)SYS0(__NR_getpid);
	return report_send(CONTROL_FD, &up, -1);
}

/* In the helper. With a monitor to come, only that goes on from here. */
int early_start(struct early *e, void *plan)
{
	struct clone_args monitor = { .exit_signal = SIG_CHLD };
	struct clone_args init = { .flags = e->flags, .exit_signal = SIG_CHLD };
	struct report made = { .kind = REPORT_INIT };
	int pair[2];
	long r;

	if (e->cgroups[0] >= 0) {
		monitor.flags |= CLONE_INTO_CGROUP;
		monitor.cgroup = (unsigned)e->cgroups[0];
	}
	if (e->cgroups[1] >= 0) {
		init.flags |= CLONE_INTO_CGROUP;
		init.cgroup = (unsigned)e->cgroups[1];
	}
	if (e->what & EARLY_LEAVE) {
		init.flags |= CLONE_PARENT;
		init.exit_signal = 0;
		sys_fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC);
	} else if (!e->standby) {
		r = SYS2(__NR_clone3, &monitor, sizeof monitor);
		if (r > 0)
			sys_exit(0);
		if (r < 0)
			return (int)r;
		SYS0(__NR_setsid);
	}
	r = SYS4(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
	if (r < 0)
		return (int)r;
	r = SYS2(__NR_clone3, &init, sizeof init);
	if (r == 0) {
		sys_close(pair[0]);
		if (!(e->what & EARLY_LEAVE))
			sys_close(CONTROL_FD);
		for (int i = 0; i < 2; i++)
			if (e->cgroups[i] >= 0)
				sys_close(e->cgroups[i]);
		wait_for_plan(e, pair[1], plan);
	}
	sys_close(pair[1]);
	e->pid = (int)r;
	e->sync = pair[0];
	for (int i = 0; i < 2; i++)
		if (e->cgroups[i] >= 0)
			sys_close(e->cgroups[i]);
	/* As the driver's child it must be reaped by the driver, whatever comes. */
	made.pid = e->pid;
	if (r > 0 && e->what & EARLY_LEAVE)
		report_send(CONTROL_FD, &made, -1);
	return r < 0 ? (int)r : 0;
}

/* Whether the init is in what the plan wants it in. */
int early_fits(const struct early *e, const struct op *clone)
{
	return clone->flags == e->flags && (clone->fd != NO_FD) == (e->cgroups[1] >= 0);
}

static int send_files(int to, const struct message *head, const void *data, size_t n,
		      const int *fds, size_t count)
{
	static union {
		struct cmsghdr head;
		uint8_t room[sizeof(struct cmsghdr) + MAX_PASSED * sizeof(int) + 8];
	} control;
	struct iovec parts[2] = { { (void *)(uintptr_t)head, sizeof *head },
				  { (void *)(uintptr_t)data, n } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = n ? 2 : 1 };
	long r;

	if (count) {
		control.head = (struct cmsghdr){ sizeof control.head + count * sizeof(int),
						 SOL_SOCKET, SCM_RIGHTS };
		memcpy(&control.head + 1, fds, count * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = control.head.cmsg_len;
	}
	do
		r = SYS3(__NR_sendmsg, to, &m, MSG_NOSIGNAL);
	while (r == -EINTR);
	return r < 0 ? (int)r : 0;
}

/* The files and the streams; then the plan, which lies in the shared memory. */
int early_hand_over(const struct early *e, const struct plan *plan, const int *from, const int *std)
{
	struct message head = { .magic = SEND_MAGIC, .kind = SEND_FILES };
	struct handed h = { .head = { .magic = SEND_MAGIC, .kind = SEND_PLAN, .a = plan->len,
				      .b = plan->files } };
	int streams[3], r = 0;
	uint32_t n = 0;

	for (uint32_t at = 0; at < plan->files && r == 0; at += MAX_PASSED) {
		uint32_t left = plan->files - at;

		r = send_files(e->sync, &head, NULL, 0, from + at, left < MAX_PASSED ? left : MAX_PASSED);
	}
	for (int i = 0; i < 3; i++) {
		h.std[i] = std[i] < 0 || e->what & EARLY_LEAVE ? -1 : (int32_t)(plan->files + n);
		if (h.std[i] >= 0)
			streams[n++] = std[i];
	}
	return r < 0 ? r : send_files(e->sync, &h.head, h.std, sizeof h.std, streams, n);
}

/* An init that nobody will give a plan. */
void early_drop(struct early *e)
{
	struct waitinfo info = { 0 };

	sys_close(e->sync);
	SYS2(__NR_kill, e->pid, SIG_KILL);
	while (SYS5(__NR_waitid, P_PID, e->pid, &info, WEXITED, 0) == -EINTR)
		;
	e->pid = 0;
}
