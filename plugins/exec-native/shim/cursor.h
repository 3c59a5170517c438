/*
 * cursor.h - a bounded reader of the plan's bytes.
 */
#ifndef GANTRY_CURSOR_H
#define GANTRY_CURSOR_H

#include "plan.h"

/* A reader over one payload. Once bad it stays so, and reads zeros. */
struct cur {
	const uint8_t *p, *end;
	uint32_t files;
	int bad;
};

static inline const uint8_t *take(struct cur *c, size_t n)
{
	const uint8_t *at = c->p;

	if (c->bad || (size_t)(c->end - c->p) < n) {
		c->bad = 1;
		return NULL;
	}
	c->p += n;
	return at;
}

static inline uint16_t get16(struct cur *c)
{
	const uint8_t *p = take(c, 2);

	return p ? (uint16_t)(p[0] | p[1] << 8) : 0;
}

static inline uint32_t get32(struct cur *c)
{
	const uint8_t *p = take(c, 4);

	return p ? p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

static inline uint64_t get64(struct cur *c)
{
	uint64_t low = get32(c);

	return low | (uint64_t)get32(c) << 32;
}

/* payload_get decodes a payload into op, whose kind is known: 0 or -EINVAL. */
int payload_get(struct op *op, const uint8_t *p, uint32_t len, uint32_t files);

#endif
