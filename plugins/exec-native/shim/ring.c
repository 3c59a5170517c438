/*
 * ring.c - non-blocking delivery to the log: a second process writes it, so
 * that a slow disk never holds the program up. Between the two lies a ring of
 * shared memory; what it cannot take is dropped and counted, and told in the
 * log as a gap. Only who asks for it has that process.
 */
#include "monitor.h"

#define MIN_ENTRY 24u
#define ROOM_MS 5
#define PIPE_PAGE 4096u
#define PARTS 4u /* of a ring, in the largest of which output is put in */

/* What stands before the bytes of a record in the ring. A gap has none. */
struct entry {
	uint32_t length, stream;
	uint64_t offset, time; /* of a gap: how many bytes are missing */
};
_Static_assert(sizeof(struct entry) == MIN_ENTRY, "entry");

/* One puts, one takes: put and taken count bytes for ever. */
struct ring {
	uint64_t put, taken;
	uint32_t size;
	uint32_t ended;
	int wake;    /* the putter's end of a pipe that the taker sleeps on */
	int over;    /* hangs up when the taker has ended */
	uint64_t handled, told; /* bytes taken, and those of them that the log has or calls missing */
	uint64_t dropped, dropped_at; /* not yet told in the ring */
	uint8_t bytes[];
};

static uint64_t load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static void copy_in(struct ring *r, uint64_t at, const void *p, uint32_t n)
{
	uint32_t from = (uint32_t)(at % r->size);
	uint32_t first = n < r->size - from ? n : r->size - from;

	memcpy(r->bytes + from, p, first);
	memcpy(r->bytes, (const uint8_t *)p + first, n - first);
}

static void copy_out(const struct ring *r, uint64_t at, void *p, uint32_t n)
{
	uint32_t from = (uint32_t)(at % r->size);
	uint32_t first = n < r->size - from ? n : r->size - from;

	memcpy(p, r->bytes + from, first);
	memcpy((uint8_t *)p + first, r->bytes, n - first);
}

/* All of an entry, or nothing of it. */
static int put(struct ring *r, const struct entry *e, const void *p)
{
	uint64_t at = r->put;

	if (at - load(&r->taken) + sizeof *e + e->length > r->size)
		return 0;
	copy_in(r, at, e, sizeof *e);
	if (e->length)
		copy_in(r, at + sizeof *e, p, e->length);
	store(&r->put, at + sizeof *e + e->length);
	sys_write(r->wake, "w", 1); /* a full pipe wakes as well */
	return 1;
}

static void put_or_drop(struct ring *r, const struct entry *e, const void *p)
{
	if (r->dropped) {
		struct entry gap = { 0, LOG_GAP, r->dropped_at, r->dropped };

		if (put(r, &gap, NULL))
			r->dropped = 0;
	}
	if (!r->dropped && put(r, e, p))
		return;
	if (!r->dropped)
		r->dropped_at = e->offset;
	r->dropped += e->length;
}

/* In parts: one read may be as much as a whole ring. */
void ring_put(const void *p, uint32_t n, uint32_t stream, uint64_t offset)
{
	struct ring *r = M.log.ring;
	uint32_t most = r->size / PARTS, part;
	uint64_t now = (uint64_t)sys_clock(CLOCK_REALTIME);

	for (uint32_t at = 0; at < n; at += part) {
		part = n - at < most ? n - at : most;
		struct entry e = { part, stream, offset + at, now };

		put_or_drop(r, &e, (const uint8_t *)p + at);
	}
}

/* One entry out of the ring and into the log. Its room is free before the disk has
 * it: who finds it in the log finds room for as much. */
static void take_one(struct ring *r)
{
	uint8_t *piece = M.out[0].piece; /* this process has no other use for it */
	struct entry e;

	copy_out(r, r->taken, &e, sizeof e);
	if (e.length)
		copy_out(r, r->taken + sizeof e, piece, e.length);
	store(&r->taken, r->taken + sizeof e + e.length);
	if (e.stream == LOG_GAP) {
		log_drop(e.offset, e.time);
		r->handled += e.time;
	} else {
		log_record(piece, e.length, e.stream, e.offset, e.time);
		r->handled += e.length;
	}
	store(&r->told, r->handled - M.log.dropped);
}

/* The writer's life: until the ring is empty and the monitor has ended it. */
static void writer_main(struct ring *r, int wake)
{
	char waste[4096];

	sys_prctl(PR_SET_NAME, (unsigned long)"gantry-log", 0, 0);
	sys_prctl(PR_SET_PDEATHSIG, SIG_KILL, 0, 0);
	confine();
	for (;;) {
		int last = __atomic_load_n(&r->ended, __ATOMIC_ACQUIRE) != 0;

		while (r->taken != load(&r->put))
			take_one(r);
		if (last || sys_read(wake, waste, sizeof waste) <= 0)
			break;
	}
	while (r->taken != load(&r->put))
		take_one(r);
	log_flush();
	store(&r->told, r->handled - M.log.dropped);
	sys_exit(0);
}

/* Closes everything but three descriptors of the writer's, and 0 to 2. */
static void keep_only(int a, int b, int c)
{
	int keep[3] = { a, b, c }, from = 3;

	for (int i = 0; i < 3; i++) /* three are sorted soon */
		for (int k = 0; k < 2; k++)
			if (keep[k] > keep[k + 1]) {
				int t = keep[k];

				keep[k] = keep[k + 1];
				keep[k + 1] = t;
			}
	for (int i = 0; i < 3; i++) {
		if (keep[i] > from)
			SYS3(__NR_close_range, from, keep[i] - 1, 0);
		from = keep[i] + 1;
	}
	SYS3(__NR_close_range, from, ~0u, 0);
}

/* Beside so many bytes of output the ring has room for the heads of their parts,
 * also where a pipe gave them page by page. */
static int start_writer(uint32_t buffer)
{
	uint32_t size = buffer + (buffer / PIPE_PAGE + 2 * PARTS) * MIN_ENTRY;
	struct ring *r = (void *)SYS6(__NR_mmap, 0, sizeof *r + size, PROT_READ | PROT_WRITE,
				      MAP_ANON_SHARED, -1, 0);
	struct clone_args args = { .exit_signal = SIG_CHLD };
	int wake[2], over[2], err;
	long pid;

	if (sys_failed(r))
		return -ENOMEM;
	r->size = size;
	err = (int)SYS2(__NR_pipe2, wake, O_CLOEXEC);
	if (err == 0)
		err = (int)SYS2(__NR_pipe2, over, O_CLOEXEC);
	if (err < 0)
		return err;
	pid = SYS2(__NR_clone3, &args, sizeof args);
	if (pid == 0) {
		/* The end of over that stays is of no other use: it hangs up. */
		sys_fcntl(over[1], F_SETFD, 0);
		SYS3(__NR_dup3, over[1], 2, 0);
		keep_only(M.log.dir, M.log.fd, wake[0]);
		writer_main(r, wake[0]);
	}
	sys_close(wake[0]);
	sys_close(over[1]);
	r->wake = wake[1];
	r->over = over[0];
	M.log.ring = r;
	if (pid < 0)
		return (int)pid;
	return (int)sys_fcntl(r->wake, F_SETFL, O_WRONLY | O_NONBLOCK);
}

int log_policy(const struct op *op)
{
	if (M.log.fd < 0)
		return -EINVAL;
	M.log.max_age = (uint64_t)op->policy.max_age * 1000000000;
	return op->policy.non_blocking ? start_writer(op->policy.buffer) : 0;
}

/* In the init: neither memory nor pipes of the log are its. */
void ring_forget(void)
{
	struct ring *r = M.log.ring;

	if (!r)
		return;
	sys_close(r->wake);
	sys_close(r->over);
	SYS2(__NR_munmap, r, sizeof *r + r->size);
	M.log.ring = NULL;
}

/* Waits at most so long for the writer's end; 1 if it has ended. */
static int await_writer(const struct ring *r, int64_t ms)
{
	struct __kernel_timespec t = { ms / 1000, ms % 1000 * 1000000 };
	struct pollfd p = { .fd = r->over, .events = POLLIN };

	return ms > 0 && SYS5(__NR_ppoll, &p, 1, &t, 0, 0) > 0;
}

/* Gives the writer some time to finish, and to make room for the last gap; it
 * goes with us otherwise. Returns how many bytes the log has, or calls missing. */
uint64_t ring_end(void)
{
	struct ring *r = M.log.ring;
	int64_t end = now_ms() + FOLLOWER_MS;

	while (r->dropped) {
		struct entry gap = { 0, LOG_GAP, r->dropped_at, r->dropped };

		if (put(r, &gap, NULL) || now_ms() >= end || await_writer(r, ROOM_MS))
			break;
	}
	__atomic_store_n(&r->ended, 1, __ATOMIC_RELEASE);
	sys_close(r->wake);
	await_writer(r, end - now_ms());
	sys_close(r->over);
	M.log.ring = NULL;
	return load(&r->told);
}
