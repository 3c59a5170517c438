/*
 * ending.c - how a run ends: the exit is seen, what the pipes hold is taken,
 * the OOM counter is read, the record is written, the driver and the clients
 * are told, and only then is the dead process reaped.
 */
#include "monitor.h"

int reap(int flags)
{
	struct waitinfo info = { 0 };
	long r;

	do
		r = SYS5(__NR_waitid, P_PID, M.pid, &info, WEXITED | flags, 0);
	while (r == -EINTR);
	if (r < 0 || !info.pid)
		return 0;
	M.rec.signal = info.code == CLD_EXITED ? 0 : info.status & 0x7f;
	M.rec.code = info.code == CLD_EXITED ? info.status : 128 + M.rec.signal;
	return 1;
}

/* The number behind "oom_kill " at the start of a line; the kernel's own text,
 * in memory.events (v2) as in memory.oom_control (v1). */
uint64_t oom_count(void)
{
	static const char key[] = "oom_kill ";
	char text[512];
	uint64_t v = 0;
	long n = M.oom < 0 ? 0 : SYS4(__NR_pread64, M.oom, text, sizeof text, 0);

	for (long i = 0; i + (long)sizeof key <= n; i++) {
		if ((i && text[i - 1] != '\n') || memcmp(text + i, key, sizeof key - 1) != 0)
			continue;
		for (i += (long)sizeof key - 1; i < n && text[i] >= '0' && text[i] <= '9'; i++)
			v = v * 10 + (uint64_t)(text[i] - '0');
		break;
	}
	return v;
}

void write_record(uint16_t state)
{
	M.rec.magic = RECORD_MAGIC;
	M.rec.version = 1;
	M.rec.state = state;
	M.rec.crc = crc32(&M.rec, sizeof M.rec - sizeof M.rec.crc);
	if (M.record >= 0)
		SYS4(__NR_pwrite64, M.record, &M.rec, sizeof M.rec, 0);
	for (int i = 0; i < MAX_CLIENTS; i++)
		M.clients[i].state_due = 1;
	deliver_all();
}

static void let_go(int *fd)
{
	if (*fd >= 0)
		sys_close(*fd);
	*fd = -1;
}

/* Lets go of everything that says "alive", then tells driver and clients: who
 * hears of the end finds the lock free. */
static void tell_end(struct report *r)
{
	let_go(&M.listen);
	let_go(&M.lock);
	let_go(&M.record);
	let_go(&M.log.fd);
	let_go(&M.log.dir);
	let_go(&M.oom);
	let_go(&M.pidfd);
	let_go(&M.sync);
	if (M.terminal < 0)
		let_go(&M.stdin_fd);
	M.in_len = M.in_at = 0;
	report_to_driver(r);
	let_go(&M.control);
	enter_phase(PHASE_CLOSED);
	for (int i = 0; i < MAX_CLIENTS; i++)
		M.clients[i].exit_due = 1;
	deliver_all();
}

/* The start has failed: the init goes, then the failure is told. */
void monitor_fail(uint16_t stage, uint16_t kind, uint32_t index, int err)
{
	struct report r = { .kind = REPORT_ERROR, .stage = stage, .op = kind, .index = index,
			    .err = -err, .flags = FLAG_FAILED };

	if (M.phase == PHASE_CLOSED)
		return;
	if (M.pid > 0) {
		SYS2(__NR_kill, M.pid, SIG_KILL);
		reap(0);
	}
	let_go(&M.slave);
	for (int i = 0; i < 2; i++)
		stream_finish(&M.out[i]);
	M.rec.code = kind != OP_EXEC ? 125 : err == -ENOENT || err == -ENOTDIR ? 127 : 126;
	M.rec.signal = 0;
	M.rec.flags = FLAG_FAILED;
	M.rec.stage = stage;
	M.rec.op = kind;
	M.rec.index = index;
	M.rec.err = -err;
	M.rec.ended = (uint64_t)sys_clock(CLOCK_REALTIME);
	write_record(STATE_FAILED);
	r.code = M.rec.code;
	r.signal = M.hook_status;
	log_end();
	tell_end(&r);
}

/* The program has had its time: its process group goes, which it leads unless
 * it has made another. */
void time_is_up(void)
{
	M.deadline = 0;
	M.rec.flags |= FLAG_TIMEOUT;
	SYS2(__NR_kill, -M.pid, SIG_KILL);
}

/* The exit was seen; the process is still a zombie, so its pid is its own. */
void program_ended(void)
{
	if (!reap(WNOHANG | WNOWAIT)) { /* who traces it has to look at it first */
		try_later();
		return;
	}
	M.rec.ended = (uint64_t)sys_clock(CLOCK_REALTIME);
	stdin_close();
	let_go(&M.slave);
	enter_phase(PHASE_DRAIN);
}

/* Everything the program wrote is in the log: record, driver, clients. */
void close_run(void)
{
	struct report r = { .kind = REPORT_EXITED };

	for (int i = 0; i < 2; i++)
		stream_finish(&M.out[i]);
	if (oom_count() > M.oom_before)
		M.rec.flags |= FLAG_OOM;
	write_record(STATE_EXITED);
	if (!log_end()) {
		M.rec.index = r.index = (uint32_t)M.log.offset;
		M.rec.err = r.err = (int32_t)(M.log.offset >> 32);
		write_record(STATE_EXITED);
	}
	r.pid = M.pid;
	r.code = M.rec.code;
	r.signal = M.rec.signal;
	r.flags = (uint16_t)M.rec.flags;
	tell_end(&r);
	SYS0(__NR_sched_yield); /* the driver is woken here: to leave takes longer than it has to do */
	reap(0);
}
