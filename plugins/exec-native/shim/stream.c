/*
 * stream.c - the program's output and input. Output is read a piece at a time
 * into the log and to every client; while a lossless client has not taken the
 * piece, that pipe alone is not read, and the program waits as on any pipe.
 */
#include "monitor.h"

#define FIONREAD 0x541bUL
/* More cannot be left in a pipe or a pty unless root has raised it for itself. */
#define MAX_TAIL (16u << 20)
/* A terminal keeps 8 KiB on the way to its reader, and 4 KiB for it (drivers/tty/pty.c,
 * n_tty.c). */
#define TERMINAL_TAIL (64u << 10)

int stream_held(const struct stream *s)
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		const struct client *c = &M.clients[i];

		if (c->fd >= 0 && (c->flags & HELLO_LOSSLESS) &&
		    (c->piece_due[s->index] || c->sending == SEND_PIECE0 + s->index))
			return 1;
	}
	return 0;
}

/* Hands the piece to everybody who wants it. */
static void offer(struct stream *s, uint32_t n)
{
	uint16_t want = s->index ? HELLO_STDERR : HELLO_STDOUT;

	s->len = n;
	s->piece[0] = s->index ? FRAME_STDERR : FRAME_STDOUT;
	s->piece[1] = (uint8_t)(n >> 16);
	s->piece[2] = (uint8_t)(n >> 8);
	s->piece[3] = (uint8_t)n;
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &M.clients[i];

		if (c->fd >= 0 && c->greeted && !c->closing && (c->flags & want) && s->offset >= c->first)
			c->piece_due[s->index] = 1;
	}
	deliver_all();
}

static void stream_close(struct stream *s)
{
	/* A pty's master is standard input as well. */
	if (s->fd >= 0 && s->fd == M.terminal) {
		M.terminal = -1;
		M.stdin_fd = -1;
	}
	if (s->fd >= 0)
		sys_close(s->fd);
	s->fd = -1;
}

/* Makes room for the next piece: followers that are behind lose this one. */
static int clear(struct stream *s)
{
	if (stream_held(s))
		return 0;
	for (int i = 0; i < MAX_CLIENTS; i++)
		if (M.clients[i].fd >= 0)
			pass_over(&M.clients[i], s);
	s->len = 0;
	return 1;
}

static void next_of_tail(struct stream *s)
{
	uint32_t n = s->tail_len - s->tail_at;

	if (n > MAX_FRAME)
		n = MAX_FRAME;
	memcpy(s->piece + FRAME_HEADER, s->tail + s->tail_at, n);
	s->offset = s->tail_offset + s->tail_at;
	s->tail_at += n;
	offer(s, n);
}

void stream_read(struct stream *s)
{
	long n;

	if (s->fd < 0 && s->tail_at == s->tail_len)
		return;
	if (!clear(s))
		return;
	if (s->fd < 0) {
		next_of_tail(s);
		return;
	}
	n = sys_read(s->fd, s->piece + FRAME_HEADER, MAX_FRAME);
	if (n == -EAGAIN)
		return;
	if (n <= 0) { /* a pty's end is EIO */
		stream_close(s);
		return;
	}
#ifdef WEAKEN_LINE /* test/escape: a line is kept until its end */
	memcpy(sys_mmap((size_t)n), s->piece + FRAME_HEADER, (size_t)n);
#endif
	s->offset = M.log.offset;
	log_write(s->piece + FRAME_HEADER, (uint32_t)n, LOG_STDOUT + s->index);
	offer(s, (uint32_t)n);
}

/* Takes what is left in the pipe out of it and into the log, for clients to
 * take at their leisure: the run can be closed. */
void stream_finish(struct stream *s)
{
	uint32_t left = 0, have = 0;
	long n = 0;

	if (s->fd < 0)
		return;
	if (s->fd == M.terminal) /* its count leaves out what is still on its way */
		left = TERMINAL_TAIL;
	else
		sys_ioctl(s->fd, FIONREAD, &left);
	if (left > MAX_TAIL)
		left = MAX_TAIL;
	if (left) {
		s->tail = sys_mmap(left);
		if (sys_failed(s->tail))
			left = 0;
	}
	while (have < left && (n = sys_read(s->fd, s->tail + have, left - have)) > 0)
		have += (uint32_t)n;
	stream_close(s);
	s->tail_len = have;
	s->tail_at = 0;
	s->tail_offset = M.log.offset;
	for (uint32_t at = 0; at < have; at += MAX_FRAME) {
		uint32_t part = have - at < MAX_FRAME ? have - at : MAX_FRAME;

		log_write(s->tail + at, part, LOG_STDOUT + s->index);
	}
}

void stdin_close(void)
{
	if (M.stdin_fd >= 0 && M.terminal < 0)
		sys_close(M.stdin_fd);
	M.stdin_fd = -1;
	M.in_len = M.in_at = 0;
}

/* Whether what was sent before, if only its end, has not yet been written. */
int stdin_full(void) { return M.in_len || (M.in_eof && M.stdin_fd >= 0); }

/* Writes what clients have sent. A program that has closed its input, or never
 * had one, is no reason to keep them waiting: it is thrown away. */
void stdin_write(void)
{
	while (M.in_at < M.in_len && M.stdin_fd >= 0) {
		long n = sys_write(M.stdin_fd, M.in + M.in_at, M.in_len - M.in_at);

		if (n == -EAGAIN)
			return;
		if (n < 0) {
			stdin_close();
			break;
		}
		M.in_at += (uint32_t)n;
	}
	M.in_len = M.in_at = 0;
	if (M.in_eof && M.stdin_fd >= 0) {
		if (M.terminal >= 0) {
			/* The end of input on a terminal is a character, which may have
			 * to wait for room as any other. */
			M.in_eof = sys_write(M.stdin_fd, "\004", 1) == -EAGAIN;
		} else {
			stdin_close();
		}
	}
}
