/*
 * client.c - what attached clients say. Nothing is allocated by a length they
 * send; standard input waits in one buffer for all of them, and while that is
 * full nobody's input is read.
 */
#include "monitor.h"

#define TIOCSWINSZ 0x5414UL

int client_attached(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		const struct client *c = &M.clients[i];

		if (c->fd >= 0 && c->greeted && !(c->flags & HELLO_CONTROL))
			return 1;
	}
	return 0;
}

static void end_input(struct client *c)
{
	if (!c->input_ended && (c->flags & HELLO_STDIN) && (c->flags & HELLO_STDIN_ONCE)) {
		M.in_eof = 1;
		stdin_write();
	}
	c->input_ended = 1;
}

void client_close(struct client *c)
{
	end_input(c);
	forget_spill(c);
	sys_close(c->fd);
	c->fd = -1;
}

/* The client is gone, or takes no more, but standard input that it had sent may
 * still wait for room: it is read to its end, and nothing more is sent. */
void client_hung(struct client *c)
{
	if (!c->greeted || !(c->flags & HELLO_STDIN) || c->input_ended || c->closing) {
		client_close(c);
		return;
	}
	forget_spill(c);
	c->flags &= HELLO_STDIN | HELLO_STDIN_ONCE;
	c->piece_due[0] = c->piece_due[1] = 0;
	c->state_due = c->exit_due = c->blocked = 0;
	c->hung = 1;
}

/* Closes connections that have said nothing for too long; how many ms until
 * the next of them, or -1. */
int64_t close_silent(void)
{
	int64_t first = -1;

	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &M.clients[i];
		int64_t left;

		if (c->fd < 0 || c->greeted)
			continue;
		left = c->since + HELLO_MS - now_ms();
		if (left <= 0)
			client_close(c);
		else if (first < 0 || left < first)
			first = left;
	}
	return first;
}

/* A free place, if need be that of a connection that has said nothing. */
static struct client *place(void)
{
	struct client *silent = NULL;

	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &M.clients[i];

		if (c->fd < 0)
			return c;
		if (!c->greeted && (!silent || c->since < silent->since))
			silent = c;
	}
	if (silent)
		client_close(silent);
	return silent;
}

void client_accept(void)
{
	struct ucred who = { 0 };
	uint32_t size = sizeof who;
	int fd = (int)SYS4(__NR_accept4, M.listen, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c;

	if (fd < 0) {
		if (fd != -EAGAIN)
			try_later();
		return;
	}
	if (SYS5(__NR_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 ||
	    who.uid != M.set.uid || !(c = place())) {
		sys_close(fd);
		return;
	}
	memset(c, 0, sizeof *c);
	c->fd = fd;
	c->since = now_ms();
}

/* The last place is for a control client: the next driver, should this one die, must
 * get in. */
static int is_welcome(const struct client *c)
{
	int others = 0;

	for (int i = 0; i < MAX_CLIENTS; i++)
		others += M.clients[i].fd >= 0 && M.clients[i].greeted;
	return c->flags & HELLO_CONTROL || others < MAX_CLIENTS - 1;
}

static uint16_t big16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

/* A whole small frame: 0, or -1 when the client must go. */
static int small_frame(struct client *c, uint32_t len)
{
	uint16_t size[4] = { 0 };

	switch (c->head[0]) {
	case FRAME_HELLO:
		if (c->greeted || len != HELLO_SIZE || c->body[0] != PROTOCOL)
			return -1;
		c->flags = big16(c->body + 2);
		if (!is_welcome(c))
			return -1;
		if (M.set.flags & STDIN_ONCE && !(M.set.flags & TERMINAL))
			c->flags |= HELLO_STDIN_ONCE;
		c->greeted = 1;
		c->first = M.log.offset;
		c->state_due = 1;
		deliver(c);
		return 0;
	case FRAME_STDIN_EOF:
		if (c->flags & HELLO_STDIN) {
			c->flags &= (uint16_t)~HELLO_STDIN_ONCE;
			M.in_eof = 1;
			stdin_write();
		}
		return 0;
	case FRAME_RESIZE:
		if (len != RESIZE_SIZE)
			return -1;
		size[0] = big16(c->body);
		size[1] = big16(c->body + 2);
		if (M.terminal >= 0)
			sys_ioctl(M.terminal, TIOCSWINSZ, size);
		return 0;
	case FRAME_DETACH:
		c->flags &= (uint16_t)~HELLO_STDIN_ONCE;
		return -1;
	}
	return 0; /* of a later version: passed over */
}

/* Reads at most n bytes: how many, 0 for none now, -1 when the client is gone
 * or has ended its input. */
static long receive(struct client *c, void *p, uint32_t n)
{
	long r = SYS6(__NR_recvfrom, c->fd, p, n, MSG_DONTWAIT, 0, 0);

	if (r > 0)
		return r;
	if (r == -EAGAIN || r == -EINTR)
		return 0;
	if (r == 0 && c->greeted && c->head_have == 0 && !c->hung)
		end_input(c); /* half closed: it still listens */
	else
		client_close(c);
	return -1;
}

/* Payload of standard input goes straight into the one buffer. */
static long take_stdin(struct client *c)
{
	uint32_t want = c->left < STDIN_BUFFER ? c->left : STDIN_BUFFER;
	long n;

	if (stdin_full())
		return 0;
	n = receive(c, M.in, want);
	if (n <= 0)
		return n;
	c->left -= (uint32_t)n;
	if (c->flags & HELLO_STDIN && M.stdin_fd >= 0 && !M.in_eof) {
		M.in_len = (uint32_t)n;
		stdin_write();
	}
	return n;
}

/* Payload of anything else: its first bytes are kept, the rest is nobody's. */
static long take_small(struct client *c, uint32_t len)
{
	uint8_t waste[256];
	uint32_t got = len - c->left;
	uint8_t *to = got < sizeof c->body ? c->body + got : waste;
	uint32_t room = got < sizeof c->body ? (uint32_t)sizeof c->body - got : (uint32_t)sizeof waste;
	long n = receive(c, to, c->left < room ? c->left : room);

	if (n > 0)
		c->left -= (uint32_t)n;
	return n;
}

static long take_head(struct client *c)
{
	long n = receive(c, c->head + c->head_have, (uint32_t)(FRAME_HEADER - c->head_have));

	if (n <= 0)
		return n;
	c->head_have = (uint8_t)(c->head_have + n);
	if (c->head_have < FRAME_HEADER)
		return n;
	c->left = (uint32_t)c->head[1] << 16 | (uint32_t)c->head[2] << 8 | c->head[3];
	if (c->left > MAX_FRAME || (!c->greeted && c->head[0] != FRAME_HELLO)) {
		client_close(c);
		return -1;
	}
	return n;
}

/* One frame's worth at a time, so that no client starves the others. */
void client_input(struct client *c)
{
	uint32_t len;
	long n = 1;

	if (c->head_have < FRAME_HEADER)
		n = take_head(c);
	if (n <= 0 || c->head_have < FRAME_HEADER)
		return;
	len = (uint32_t)c->head[1] << 16 | (uint32_t)c->head[2] << 8 | c->head[3];
	while (c->left && n > 0)
		n = c->head[0] == FRAME_STDIN ? take_stdin(c) : take_small(c, len);
	if (n < 0 || c->left)
		return;
	c->head_have = 0;
	if (c->head[0] != FRAME_STDIN && small_frame(c, len) < 0)
		client_close(c);
}
