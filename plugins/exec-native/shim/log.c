/*
 * log.c - output kept in files (format: internal/stdio/doc.go). A record that
 * cannot be written is dropped and counted; the log never stops the program.
 */
#include "monitor.h"

struct log_head {
	uint32_t magic, length;
	uint64_t time, offset;
	uint8_t stream, zero[3];
	uint32_t crc; /* of the 28 bytes before */
};
_Static_assert(sizeof(struct log_head) == LOG_HEADER, "log header");

static int open_file(struct log *l, const char *name, int more)
{
	return (int)sys_openat(l->dir, name, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | more,
			       0600);
}

static uint64_t nanoseconds(const struct statx_timestamp *t)
{
	return (uint64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

int log_open(const struct op *op, const int *files)
{
	struct log *l = &M.log;
	struct statx st = { 0 };
	long r;

	l->dir = files[op->fd];
	l->name_len = op->log.name.n;
	memcpy(l->name, op->log.name.s, op->log.name.n);
	l->max_files = op->log.files;
	l->max_bytes = op->log.bytes;
	l->offset = l->first = op->log.offset;
	l->fd = open_file(l, l->name, 0);
	if (l->fd < 0)
		return l->fd;
	r = SYS5(__NR_statx, l->fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_MTIME | STATX_BTIME, &st);
	l->size = st.stx_size;
	l->born = nanoseconds(st.stx_mask & STATX_BTIME ? &st.stx_btime : &st.stx_mtime);
	return (int)r;
}

/* The name of file n: NAME, NAME.1, ... or NAME.new for -1. */
static const char *numbered(struct log *l, char *to, int n)
{
	size_t at = l->name_len;

	memcpy(to, l->name, at);
	if (n) {
		to[at++] = '.';
		if (n < 0)
			memcpy(to + at, "new", 3), at += 3;
		else
			at += put_number(to + at, (uint64_t)n);
	}
	to[at] = 0;
	return to;
}

/* The new file exists before the old one is renamed: where there is no room
 * for one, the old one is written on. */
static void rotate(struct log *l)
{
	char from[sizeof l->name + 24], to[sizeof l->name + 24];
	int fd;

	SYS3(__NR_unlinkat, l->dir, numbered(l, to, -1), 0);
	fd = open_file(l, to, O_EXCL);
	if (fd < 0)
		return;
	if (l->max_files == 1)
		SYS3(__NR_unlinkat, l->dir, numbered(l, from, 0), 0);
	/* Not by the renaming: ext4 would have the file replaced on disk first. */
	if (l->max_files > 1)
		SYS3(__NR_unlinkat, l->dir, numbered(l, to, (int)l->max_files - 1), 0);
	for (int n = (int)l->max_files - 2; n >= 0; n--)
		SYS5(__NR_renameat2, l->dir, numbered(l, from, n), l->dir, numbered(l, to, n + 1), 0);
	SYS5(__NR_renameat2, l->dir, numbered(l, from, -1), l->dir, numbered(l, to, 0), 0);
	sys_close(l->fd);
	l->fd = fd;
	l->size = 0;
}

/* A file that would become too large, or is too old. A clock that was set back
 * makes it no older. */
static int is_full(const struct log *l, uint32_t n, uint64_t now)
{
	return l->size + LOG_HEADER + n > l->max_bytes ||
	       (l->max_age && now > l->born && now - l->born > l->max_age);
}

/* One record with one write; what was written of a torn one is cut off. */
static int put_record(struct log *l, const void *p, uint32_t n, uint32_t stream, uint64_t offset,
		      uint64_t time)
{
	struct log_head head = { .magic = LOG_MAGIC, .length = n, .offset = offset,
				 .stream = (uint8_t)stream, .time = time };
	struct iovec parts[2] = { { &head, sizeof head }, { (void *)(uintptr_t)p, n } };
	long r;

	if (l->size > 0 && is_full(l, n, time))
		rotate(l);
	if (l->size == 0)
		l->born = time;
	head.crc = crc32(&head, sizeof head - sizeof head.crc);
	do
		r = SYS3(__NR_writev, l->fd, parts, 2);
	while (r == -EINTR);
	if (r == (long)(sizeof head + n)) {
		l->size += (uint64_t)r;
		return 0;
	}
	if (r > 0 && SYS2(__NR_ftruncate, l->fd, l->size) < 0)
		l->size += (uint64_t)r; /* it stays, and nothing before it may be cut */
	return -1;
}

/* The last word about what was dropped, should there be room for it now. */
void log_flush(void)
{
	struct log *l = &M.log;

	if (l->dropped && put_record(l, &l->dropped, sizeof l->dropped, LOG_GAP, l->dropped_at,
				     (uint64_t)sys_clock(CLOCK_REALTIME)) == 0)
		l->dropped = 0;
}

/* Nothing more comes; 0 if the log neither has all of it nor calls the rest
 * missing. */
int log_end(void)
{
	struct log *l = &M.log;

	if (l->fd < 0)
		return 1;
	if (l->ring)
		return ring_end() == l->offset - l->first;
	log_flush();
	return l->dropped == 0;
}

/* A record of the output, and before it the word about what was dropped: by us,
 * or by who hands it over. */
void log_record(const void *p, uint32_t n, uint32_t stream, uint64_t offset, uint64_t time)
{
	struct log *l = &M.log;

	log_flush();
	if (!l->dropped && put_record(l, p, n, stream, offset, time) == 0)
		return;
	log_drop(offset, n);
}

void log_drop(uint64_t offset, uint64_t n)
{
	if (!M.log.dropped)
		M.log.dropped_at = offset;
	M.log.dropped += n;
}

void log_write(const void *p, uint32_t n, uint32_t stream)
{
	struct log *l = &M.log;
	uint64_t offset = l->offset;

	l->offset += n;
	if (l->fd < 0)
		return;
	if (l->ring)
		ring_put(p, n, stream, offset);
	else
		log_record(p, n, stream, offset, (uint64_t)sys_clock(CLOCK_REALTIME));
}
