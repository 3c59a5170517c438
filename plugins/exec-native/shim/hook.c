/*
 * hook.c - hooks that run inside the container's namespaces: the state on
 * standard input, the program's own streams for what they say, and an end by
 * force when they take too long.
 */
#include "shim.h"

#define MFD_CLOEXEC 1u
#define MFD_NOEXEC_SEAL 8u
#define P_PIDFD 3

/* The state as a file: of any length, and nobody must read it. */
static int state_file(const struct op *op)
{
	char pid[20];
	size_t n = put_number(pid, (uint64_t)SYS0(__NR_getpid));
	int fd = (int)SYS2(__NR_memfd_create, "state", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	int r;

	if (fd == -EINVAL) /* before 6.3 */
		fd = (int)SYS2(__NR_memfd_create, "state", MFD_CLOEXEC);
	if (fd < 0)
		return fd;
	r = write_all(fd, op->hook.state.p, op->hook.state.n);
	if (r == 0 && SYS4(__NR_pwrite64, fd, pid, n, op->hook.pid_at) != (long)n)
		r = -EIO;
	if (r == 0)
		r = (int)SYS3(__NR_lseek, fd, 0, 0);
	if (r == 0)
		return fd;
	sys_close(fd);
	return r;
}

/* The hook's life. err is a pipe that exec closes. */
static void hook_main(struct init *in, const struct op *op, int state, int err)
{
	const char **envp, **argv = words_of(op->hook.args, op->hook.env, &envp);
	struct pollfd peer = { .fd = in->sync };
	struct __kernel_timespec now = { 0 };
	int out[2], r;

	sys_prctl(PR_SET_PDEATHSIG, SIG_KILL, 0, 0);
	SYS5(__NR_ppoll, &peer, 1, &now, 0, 0);
	if (!in->leaving && peer.revents & POLLHUP)
		sys_exit(127); /* the monitor is dead, and the init may have died before the line above */
	SYS0(__NR_setsid);
	ignore_signals(0);
	SYS1(__NR_umask, 022);
	for (int i = 0; i < 2; i++) {
		out[i] = in->console >= 0 ? in->console : in->std[i + 1];
		if (out[i] < 0) /* the shim's own */
			out[i] = i + 1;
	}
	/* Above 2, so that none is lost to another. */
	state = (int)sys_fcntl(state, F_DUPFD_CLOEXEC, 3);
	err = (int)sys_fcntl(err, F_DUPFD_CLOEXEC, 3);
	r = (int)SYS3(__NR_dup3, state, 0, 0);
	for (int i = 0; i < 2 && r >= 0; i++)
		if (out[i] != i + 1)
			r = (int)SYS3(__NR_dup3, out[i], i + 1, 0);
	if (r >= 0)
		r = (int)SYS3(__NR_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
	if (r >= 0)
		r = (int)SYS3(__NR_execve, op->hook.path.s, argv, envp);
	sys_write(err, &r, sizeof r);
	sys_exit(127);
}

/* Waits for the end, or makes one: 0, or a negative errno. */
static int attend(struct init *in, int pid, int pidfd, uint32_t timeout_ms)
{
	struct __kernel_timespec t = { timeout_ms / 1000, timeout_ms % 1000 * 1000000 };
	int64_t end = sys_clock(CLOCK_MONOTONIC) + timeout_ms * 1000000LL;
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	struct waitinfo info = { 0 };
	long n;

	do {
		int64_t left = end - sys_clock(CLOCK_MONOTONIC);

		left = left > 0 ? left : 0;
		t = (struct __kernel_timespec){ left / 1000000000, left % 1000000000 };
		n = SYS5(__NR_ppoll, &p, 1, timeout_ms ? &t : NULL, 0, 0);
	} while (n == -EINTR);
	if (n == 0) {
		/* Its group, and itself should it not lead one yet. */
		SYS2(__NR_kill, -pid, SIG_KILL);
		SYS2(__NR_kill, pid, SIG_KILL);
	}
	while (SYS5(__NR_waitid, P_PIDFD, pidfd, &info, WEXITED, 0) == -EINTR)
		;
	if (n == 0)
		return -ETIMEDOUT;
	in->status = info.code == CLD_EXITED ? (info.status & 0xff) << 8 : info.status & 0x7f;
	return in->status ? -ECHILD : 0;
}

int op_hook(struct init *in, const struct op *op)
{
	int ends[2], pidfd = -1, state = state_file(op), r, failed = 0;
	struct clone_args args = { .exit_signal = SIG_CHLD, .flags = CLONE_PIDFD,
				   .pidfd = (uintptr_t)&pidfd };
	long pid;

	if (state < 0)
		return state;
	r = (int)SYS2(__NR_pipe2, ends, O_CLOEXEC);
	if (r < 0) {
		sys_close(state);
		return r;
	}
	pid = SYS2(__NR_clone3, &args, sizeof args);
	if (pid == 0)
		hook_main(in, op, state, ends[1]);
	sys_close(state);
	sys_close(ends[1]);
	r = (int)pid;
	if (pid > 0) {
		r = attend(in, (int)pid, pidfd, op->hook.timeout_ms);
		sys_close(pidfd);
		if (sys_read(ends[0], &failed, sizeof failed) != sizeof failed)
			failed = 0;
	}
	sys_close(ends[0]);
	if (failed < 0)
		in->status = 0;
	return failed < 0 ? failed : r;
}
