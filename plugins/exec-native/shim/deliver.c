/*
 * deliver.c - what attached clients are sent: pieces of output straight from
 * the stream's buffer, and small frames made when their turn comes. The exit
 * comes after the last byte.
 */
#include "monitor.h"

/* What a follower had begun to take when its piece was needed for the next:
 * touched only then, given back afterwards. */
static uint8_t spill[MAX_CLIENTS][MAX_FRAME + 4096] __attribute__((aligned(4096)));

#define MADV_DONTNEED 4

static uint8_t *spill_of(const struct client *c) { return spill[c - M.clients]; }

void forget_spill(struct client *c)
{
	if (c->sending == SEND_SPILL)
		SYS3(__NR_madvise, spill_of(c), sizeof spill[0], MADV_DONTNEED);
	c->sending = SEND_NOTHING;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--)
		*p++ = (uint8_t)(v >> 8 * i);
	return p;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	for (int i = 3; i >= 0; i--)
		*p++ = (uint8_t)(v >> 8 * i);
	return p;
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	*p++ = (uint8_t)(v >> 8);
	*p++ = (uint8_t)v;
	return p;
}

static uint8_t *begin_small(struct client *c, uint8_t type, uint8_t size)
{
	memset(c->small, 0, sizeof c->small);
	c->small[0] = type;
	c->small[3] = size;
	c->small_len = FRAME_HEADER + (uint32_t)size;
	c->sending = SEND_SMALL;
	c->at = 0;
	return c->small + FRAME_HEADER;
}

static void state_frame(struct client *c)
{
	uint8_t *p = begin_small(c, FRAME_STATE, STATE_SIZE);

	p = put16(p, PROTOCOL);
	p = put16(p, M.rec.state);
	p = put32(p, (uint32_t)M.rec.pid);
	p = put32(p, (uint32_t)M.rec.shim_pid);
	p = put32(p, 0);
	put64(p, M.log.offset);
	c->state_due = 0;
}

static void exit_frame(struct client *c)
{
	uint8_t *p = begin_small(c, FRAME_EXIT, EXIT_SIZE);

	p = put32(p, (uint32_t)M.rec.code);
	p = put32(p, (uint32_t)M.rec.signal);
	p = put32(p, M.rec.flags);
	p = put32(p, 0);
	p = put64(p, M.rec.ended);
	p = put16(p, M.rec.stage);
	p = put16(p, M.rec.op);
	p = put32(p, M.rec.index);
	p = put32(p, (uint32_t)M.rec.err);
	put32(p, 0);
	c->exit_due = 0;
	c->closing = 1;
}

static void lost_frame(struct client *c, int i)
{
	uint8_t *p = begin_small(c, FRAME_LOST, LOST_SIZE);

	p = put32(p, LOG_STDOUT + (uint32_t)i);
	p = put32(p, 0);
	p = put64(p, c->lost_from[i]);
	put64(p, c->lost_to[i]);
	c->lost_from[i] = c->lost_to[i] = 0;
}

/* Whether this client has had all that it will get: a lossless one the whole
 * of its streams, a follower what there was; the rest of what is kept for
 * others it finds in the log, and is told so. Control clients wait for none. */
static int has_all(struct client *c)
{
	for (int i = 0; i < 2; i++) {
		const struct stream *s = &M.out[i];
		uint16_t want = i ? HELLO_STDERR : HELLO_STDOUT;

		if (!(c->flags & want) || (s->fd < 0 && s->tail_at == s->tail_len))
			continue;
		if (s->fd < 0 && s->tail_offset < c->first) /* all of it is from before */
			continue;
		if (s->fd >= 0 || c->flags & HELLO_LOSSLESS)
			return 0;
		c->flags &= (uint16_t)~want;
		c->lost_from[i] = s->tail_offset + s->tail_at;
		c->lost_to[i] = s->tail_offset + s->tail_len;
		lost_frame(c, i);
		return -1;
	}
	return 1;
}

/* What comes next for this client; 0 when there is nothing. */
static int begin(struct client *c)
{
	if (c->closing)
		return 0;
	if (c->state_due) {
		state_frame(c);
		return 1;
	}
	for (int i = 0; i < 2; i++) {
		if (c->lost_to[i] > c->lost_from[i]) {
			lost_frame(c, i);
			return 1;
		}
		if (c->piece_due[i]) {
			c->piece_due[i] = 0;
			c->sending = (uint8_t)(SEND_PIECE0 + i);
			c->at = 0;
			return 1;
		}
	}
	if (c->exit_due) {
		int all = has_all(c);

		if (all > 0)
			exit_frame(c);
		return all;
	}
	return 0;
}

static const uint8_t *source(const struct client *c, uint32_t *len)
{
	const struct stream *s;

	if (c->sending == SEND_SMALL) {
		*len = c->small_len;
		return c->small;
	}
	if (c->sending == SEND_SPILL) {
		*len = c->spill_len;
		return spill_of(c);
	}
	s = &M.out[c->sending - SEND_PIECE0];
	*len = FRAME_HEADER + s->len;
	return s->piece;
}

void deliver(struct client *c)
{
	while (c->fd >= 0 && !c->blocked && !c->hung && (c->sending != SEND_NOTHING || begin(c))) {
		uint32_t len;
		const uint8_t *p = source(c, &len);
		long n = SYS6(__NR_sendto, c->fd, p + c->at, len - c->at,
			      MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN) {
			c->blocked = 1;
			return;
		}
		if (n < 0) {
			client_hung(c);
			return;
		}
		c->at += (uint32_t)n;
		if (c->at < len)
			continue;
		forget_spill(c);
		if (c->closing)
			client_close(c);
	}
}

void deliver_all(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++)
		if (M.clients[i].fd >= 0 && M.clients[i].greeted)
			deliver(&M.clients[i]);
}

/* The stream's piece makes way for the next, and this client, a follower, has
 * not taken it: a begun frame is finished from a copy, a whole one is lost. */
void pass_over(struct client *c, struct stream *s)
{
	int i = s->index;

	if (c->sending == SEND_PIECE0 + i) {
		c->spill_len = FRAME_HEADER + s->len - c->at;
		memcpy(spill_of(c), s->piece + c->at, c->spill_len);
		c->sending = SEND_SPILL;
		c->at = 0;
	}
	if (!c->piece_due[i])
		return;
	c->piece_due[i] = 0;
	if (c->lost_to[i] == c->lost_from[i])
		c->lost_from[i] = s->offset;
	c->lost_to[i] = s->offset + s->len;
}
