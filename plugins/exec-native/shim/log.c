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
	l->offset = op->log.offset;
	l->fd = open_file(l, l->name, 0);
	if (l->fd < 0)
		return l->fd;
	r = SYS5(__NR_statx, l->fd, "", AT_EMPTY_PATH, STATX_SIZE, &st);
	l->size = st.stx_size;
	return (int)r;
}

int log_policy(const struct op *op)
{
	M.log.max_age = (uint64_t)op->policy.max_age * 1000000000;
	M.log.buffer = op->policy.non_blocking ? op->policy.buffer : 0;
	return 0;
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
	for (int n = (int)l->max_files - 2; n >= 0; n--)
		SYS5(__NR_renameat2, l->dir, numbered(l, from, n), l->dir, numbered(l, to, n + 1), 0);
	SYS5(__NR_renameat2, l->dir, numbered(l, from, -1), l->dir, numbered(l, to, 0), 0);
	sys_close(l->fd);
	l->fd = fd;
	l->size = 0;
}

/* One record with one write; what was written of a torn one is cut off. */
static int put_record(struct log *l, const void *p, uint32_t n, uint32_t stream, uint64_t offset)
{
	struct log_head head = { .magic = LOG_MAGIC, .length = n, .offset = offset,
				 .stream = (uint8_t)stream };
	struct iovec parts[2] = { { &head, sizeof head }, { (void *)(uintptr_t)p, n } };
	long r;

	if (l->size > 0 && l->size + sizeof head + n > l->max_bytes)
		rotate(l);
	head.time = (uint64_t)sys_clock(CLOCK_REALTIME);
	head.crc = crc32(&head, sizeof head - sizeof head.crc);
	do
		r = SYS3(__NR_writev, l->fd, parts, 2);
	while (r == -EINTR);
	if (r == (long)(sizeof head + n)) {
		l->size += (uint64_t)r;
		return 0;
	}
	if (r > 0)
		SYS2(__NR_ftruncate, l->fd, l->size);
	return -1;
}

void log_write(const void *p, uint32_t n, uint32_t stream)
{
	struct log *l = &M.log;
	uint64_t offset = l->offset;

	l->offset += n;
	if (l->fd < 0)
		return;
	if (l->dropped && put_record(l, &l->dropped, sizeof l->dropped, LOG_GAP, l->dropped_at) == 0)
		l->dropped = 0;
	if (!l->dropped && put_record(l, p, n, stream, offset) == 0)
		return;
	if (!l->dropped)
		l->dropped_at = offset;
	l->dropped += n;
}
