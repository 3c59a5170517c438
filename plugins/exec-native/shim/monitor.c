/*
 * monitor.c - the process that stays with the container: one thread, one loop
 * over poll, no memory but what is declared in monitor.h.
 */
#include "monitor.h"

#define TIOCGPTPEER 0x5441UL
#define SIGHUP_ 1
#define SIGINT_ 2
#define SIGQUIT_ 3
#define SIGPIPE_ 13
#define SIGTERM_ 15
#define SIGTSTP_ 20
#define SIGXFSZ_ 25
#define SIGSYS_ 31

struct monitor M;

int64_t now_ms(void) { return sys_clock(CLOCK_MONOTONIC) / 1000000; }

/* The program's end and new clients stay announced until they are taken. Where that
 * fails, they are not asked for until later: poll would not sleep. */
void try_later(void) { M.later = now_ms() + LATER_MS; }

/* A driver that is gone or does not read is let go of: the record and the
 * attach socket tell the next one. */
static void report_with(struct report *r, int pass)
{
	if (M.control >= 0 && report_send(M.control, r, pass) < 0) {
		sys_close(M.control);
		M.control = -1;
	}
}

void report_to_driver(struct report *r) { report_with(r, -1); }

void enter_phase(enum phase phase)
{
	uint32_t wait = phase == PHASE_GATE ? M.set.gate_ms :
			phase == PHASE_RUNNING ? M.limit_ms :
			phase == PHASE_DRAIN ? M.set.drain_ms :
			phase == PHASE_CLOSED ? FOLLOWER_MS : 0;

	M.phase = phase;
	M.deadline = phase == PHASE_SETUP || phase == PHASE_SYNC ||
				     (phase == PHASE_RUNNING && !wait) ?
			     0 : now_ms() + wait;
}

/* What the monitor ignores, and the init must take back: no others are ignored,
 * as the helper has seen to. */
void ignore_signals(int ignore)
{
	static const uint8_t ignored[] = { SIGHUP_, SIGINT_, SIGQUIT_, SIGPIPE_, SIGTERM_,
					   SIGTSTP_, SIGXFSZ_ };
	uint64_t action[8] = { ignore != 0 }; /* SIG_DFL is 0, SIG_IGN 1 */

	for (size_t i = 0; i < sizeof ignored; i++)
		SYS4(__NR_rt_sigaction, ignored[i], action, 0, 8);
}

static void program_runs(void)
{
	struct report r = { .kind = REPORT_RUNNING, .pid = M.pid };

	M.rec.started = (uint64_t)sys_clock(CLOCK_REALTIME);
	enter_phase(PHASE_RUNNING);
	write_record(STATE_RUNNING);
	report_with(&r, M.set.flags & QUIET ? M.pidfd : -1);
	/* The driver is woken on this processor as a rule, and confining takes longer
	 * than what it has to do. Nothing of the container's is read before. */
	SYS0(__NR_sched_yield);
	confine();
}

static void let_init_go(void)
{
	enter_phase(PHASE_SETUP);
	sys_write(M.sync, "g", 1);
}

static void at_gate(struct report *r)
{
	if (!(M.set.flags & WAIT_ATTACH) || client_attached()) {
		let_init_go();
		return;
	}
	enter_phase(PHASE_GATE);
	report_to_driver(r);
}

static void take_console(int master)
{
	if (master < 0)
		return;
	sys_fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
	M.terminal = M.stdin_fd = M.out[0].fd = master;
	/* The program may close its streams and open the terminal again: until it
	 * ends, the master must not see a hangup, nor make one. */
	M.slave = (int)sys_ioctl(master, TIOCGPTPEER, (void *)(O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (!(M.set.flags & OPEN_STDIN))
		M.stdin_fd = -1;
}

/* A filter may have let the init neither execute nor say so: of a process that
 * has executed nothing since its fork the kernel knows it. Field 9 of its stat,
 * behind the name, which may hold any byte, but ends with the last bracket. */
static int has_executed(void)
{
	enum { FORKNOEXEC = 0x40 /* PF_FORKNOEXEC, include/linux/sched.h */ };
	char path[24] = "/proc/", text[512];
	size_t at = 6 + put_number(path + 6, (uint64_t)M.pid);
	uint64_t flags = 0;
	long n, i;
	int fd;

	memcpy(path + at, "/stat", 6);
	fd = (int)sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 1; /* without a procfs nobody can tell */
	n = sys_read(fd, text, sizeof text);
	sys_close(fd);
	for (i = n - 1; i >= 0 && text[i] != ')'; i--)
		;
	for (int spaces = 0; i >= 0 && i < n && spaces < 7; i++)
		spaces += text[i] == ' ';
	for (; i > 0 && i < n && text[i] >= '0' && text[i] <= '9'; i++)
		flags = flags * 10 + (uint64_t)(text[i] - '0');
	return !(flags & FORKNOEXEC);
}

/* How it ended says more than that it did: that is told as the program's end. */
static int killed_by_filter(void) { return reap(WNOWAIT) && M.rec.signal == SIGSYS_; }

/* A word of the init, or its end: of the exec if it had announced it. */
static void init_says(void)
{
	struct report r;
	int passed, got = report_receive(M.sync, &r, &passed, MSG_DONTWAIT);

	if (got == -EAGAIN)
		return;
	if (got <= 0) {
		sys_close(M.sync);
		M.sync = -1;
		if (!M.final)
			monitor_fail(STAGE_CHILD, 0, 0, -ESRCH);
		else if (M.filtered && !has_executed() && !killed_by_filter())
			monitor_fail(STAGE_EXEC, 0, 0, -ESRCH);
		else
			program_runs();
		return;
	}
	switch (r.kind) {
	case REPORT_CONSOLE:
		take_console(passed);
		break;
	case REPORT_FINAL:
		M.final = 1;
		break;
	case REPORT_GATE:
		at_gate(&r);
		break;
	case REPORT_SYNC:
	case REPORT_LISTENER:
		enter_phase(PHASE_SYNC);
		report_to_driver(&r);
		if (M.control < 0)
			monitor_fail(r.stage, r.op, r.index, -ECANCELED);
		break;
	case REPORT_WARNING:
		report_to_driver(&r);
		break;
	case REPORT_ERROR:
		M.hook_status = r.signal;
		monitor_fail(r.stage, r.op, r.index, -r.err);
		break;
	}
}

/* Whether a start that is to be given up has come too far for it. The init says so
 * right before it executes the program, and what it said may be unread: it stands
 * still while that is looked at, so that nothing is killed that may have run. */
static int may_have_run(void)
{
	struct waitinfo info = { 0 };
	struct __kernel_timespec at_once = { 0 };
	struct pollfd said = { M.sync, POLLIN, 0 };

	if (M.pid <= 0 || M.phase == PHASE_SYNC)
		return 0;
	if (M.final)
		return 1;
	SYS2(__NR_kill, M.pid, SIG_STOP);
	while (SYS5(__NR_waitid, P_PID, M.pid, &info, WSTOPPED | WEXITED | WNOWAIT, 0) == -EINTR)
		;
	while (M.sync >= 0 && !M.final && SYS5(__NR_ppoll, &said, 1, &at_once, 0, 0) > 0)
		init_says();
	if (M.phase == PHASE_CLOSED)
		return 1; /* it has failed by itself, and is reaped */
	if (M.final)
		SYS2(__NR_kill, M.pid, SIG_CONT);
	return M.final;
}

void driver_says(void)
{
	struct message o = { 0 };
	long n = SYS6(__NR_recvfrom, M.control, &o, sizeof o, MSG_DONTWAIT, 0, 0);
	int starting = M.phase < PHASE_RUNNING;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		sys_close(M.control);
		M.control = -1;
		if (M.phase == PHASE_SYNC)
			monitor_fail(STAGE_GATE, OP_SYNC, 0, -ECANCELED);
		return;
	}
	if (n != sizeof o || o.magic != SEND_MAGIC)
		return;
	if (o.kind == SEND_GO && M.phase == PHASE_SYNC)
		let_init_go();
	if (o.kind == SEND_ABORT && starting && !may_have_run())
		monitor_fail(STAGE_GATE, 0, 0, -ECANCELED);
}

enum { POLL_CONTROL, POLL_SYNC, POLL_LISTEN, POLL_PID, POLL_STDIN, POLL_OUT, POLL_CLIENTS = 7,
       POLLS = POLL_CLIENTS + MAX_CLIENTS };

static short client_events(const struct client *c)
{
	int stdin_next = c->head_have == FRAME_HEADER && c->left && c->head[0] == FRAME_STDIN;
	/* What is said before there is a terminal is for it. */
	int too_early = c->greeted && M.set.flags & TERMINAL && M.phase < PHASE_RUNNING && M.terminal < 0;
	short events = 0;

	if (!c->input_ended && !c->closing && !(stdin_next && stdin_full()) && !too_early)
		events |= POLLIN;
	if (c->blocked)
		events |= POLLOUT;
	return events;
}

static void prepare(struct pollfd *p)
{
	p[POLL_CONTROL] = (struct pollfd){ M.control, POLLIN, 0 };
	p[POLL_SYNC] = (struct pollfd){ M.sync, POLLIN, 0 };
	p[POLL_LISTEN] = (struct pollfd){ M.later ? -1 : M.listen, POLLIN, 0 };
	p[POLL_PID] = (struct pollfd){ M.phase == PHASE_RUNNING && !M.later ? M.pidfd : -1, POLLIN, 0 };
	p[POLL_STDIN] = (struct pollfd){ stdin_full() ? M.stdin_fd : -1, POLLOUT, 0 };
	for (int i = 0; i < 2; i++) {
		/* While held, its end matters only once the program is gone. */
		int held = stream_held(&M.out[i]);

		p[POLL_OUT + i] = (struct pollfd){
			held && M.phase != PHASE_DRAIN ? -1 : M.out[i].fd, held ? 0 : POLLIN, 0 };
	}
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &M.clients[i];
		short events = c->fd < 0 ? 0 : client_events(c);

		p[POLL_CLIENTS + i] =
			(struct pollfd){ c->hung && !events ? -1 : c->fd, events, 0 };
	}
}

/* How long until then, unless another time is sooner: -1 for none, as 0 is for then. */
static int64_t sooner(int64_t other, int64_t then)
{
	int64_t left;

	if (!then)
		return other;
	left = then - now_ms();
	left = left < 0 ? 0 : left;
	return other < 0 || left < other ? left : other;
}

/* How long poll may sleep: to the first time at which something is to be done, or
 * not at all while kept output can go on. */
static int64_t patience(void)
{
	for (int i = 0; i < 2; i++) {
		const struct stream *s = &M.out[i];

		if (s->fd < 0 && s->tail_at < s->tail_len && !stream_held(s))
			return 0;
	}
	return sooner(sooner(close_silent(), M.deadline), M.later);
}

/* A client whose end is seen may have input left, unless that was asked for and there
 * is none: output that failed in this very round may have told its end, too. */
static void serve_client(struct client *c, short events, short revents)
{
	if (revents & POLLOUT)
		c->blocked = 0;
	if (revents & events & POLLIN)
		client_input(c);
	else if (revents & (POLLHUP | POLLERR | POLLNVAL)) {
		if (c->hung && events & POLLIN)
			client_close(c);
		else
			client_hung(c);
	}
	if (c->fd >= 0 && c->greeted && !c->hung)
		deliver(c);
}

static void serve(const struct pollfd *p)
{
	if (p[POLL_CONTROL].revents)
		driver_says();
	if (p[POLL_SYNC].revents)
		init_says();
	if (p[POLL_STDIN].revents)
		stdin_write();
	for (int i = 0; i < 2; i++) {
		struct stream *s = &M.out[i];

		if (M.phase == PHASE_DRAIN && !p[POLL_OUT + i].events && p[POLL_OUT + i].revents)
			stream_finish(s); /* no writer is left: need not wait for clients */
		else if (p[POLL_OUT + i].revents || s->tail_at < s->tail_len)
			stream_read(s);
	}
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &M.clients[i];

		if (c->fd >= 0 && c->fd == p[POLL_CLIENTS + i].fd && p[POLL_CLIENTS + i].revents)
			serve_client(c, p[POLL_CLIENTS + i].events, p[POLL_CLIENTS + i].revents);
	}
	if (p[POLL_LISTEN].revents && M.listen >= 0)
		client_accept();
	if (p[POLL_PID].revents && M.phase == PHASE_RUNNING)
		program_ended();
}

/* A client that came opens the gate; deadlines that have passed are acted on. */
static void advance(void)
{
	int late = M.deadline && now_ms() >= M.deadline;

	if (M.later && now_ms() >= M.later)
		M.later = 0;
	if (M.phase == PHASE_RUNNING && late)
		time_is_up();
	if (M.phase == PHASE_GATE && (late || client_attached()))
		let_init_go();
	if (M.phase == PHASE_DRAIN &&
	    (late || (M.out[0].fd < 0 && M.out[1].fd < 0)))
		close_run();
	if (M.phase == PHASE_CLOSED)
		deliver_all();
}

/* Whether somebody still takes output: lossless clients as long as they live,
 * all others until the deadline. */
static int wanted(void)
{
	int late = M.deadline && now_ms() >= M.deadline, more = 0;

	if (M.phase != PHASE_CLOSED)
		return 1;
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &M.clients[i];

		if (c->fd < 0)
			continue;
		if (late && !(c->flags & HELLO_LOSSLESS))
			client_close(c);
		else if (c->greeted && !c->hung)
			more = 1;
	}
	if (late)
		M.deadline = 0;
	return more;
}

static void loop(void)
{
	struct pollfd polls[POLLS];

	while (wanted()) {
		int64_t ms = patience();
		struct __kernel_timespec t = { ms / 1000, ms % 1000 * 1000000 };
		long n;

		prepare(polls);
		n = SYS5(__NR_ppoll, polls, POLLS, ms < 0 ? NULL : &t, 0, 0);
		if (n >= 0)
			serve(polls);
		advance();
	}
}

static void close_files(const struct plan *plan, const int *files)
{
	for (uint32_t i = 0; i < plan->files; i++) {
		int fd = files[i];

		if (fd != M.listen && fd != M.lock && fd != M.record && fd != M.oom && fd != M.log.dir)
			sys_close(fd);
	}
}

void monitor_main(const struct plan *plan, const int *files, struct early *e)
{
	struct report up = { .kind = REPORT_SHIM };
	struct op op = { 0 };
	int r;

	M.control = CONTROL_FD;
	M.sync = M.listen = M.lock = M.record = M.oom = M.pidfd = M.stdin_fd = M.terminal = M.slave = -1;
	M.out[0].fd = M.out[1].fd = M.log.dir = M.log.fd = -1;
	M.out[1].index = 1;
	for (int i = 0; i < MAX_CLIENTS; i++)
		M.clients[i].fd = -1;
	M.home = e->standby;
	if (!e->mapped && !e->standby)
		SYS0(__NR_setsid);
	ignore_signals(1);
	up.pid = M.rec.shim_pid = (int)SYS0(__NR_getpid);
	r = setup(plan, files, &op);
	if (r < 0) {
		monitor_fail(op.stage, op.kind, op.index, r);
	} else {
		if (!M.home || !(M.set.flags & QUIET))
			report_to_driver(&up);
		launch(plan, files, e);
		close_files(plan, files);
	}
	SYS2(__NR_munmap, plan->p, e->mapped ? e->mapped : plan->len);
	loop();
	sys_exit(0);
	__builtin_unreachable();
}
