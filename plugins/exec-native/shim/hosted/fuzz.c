/*
 * fuzz.c - the plan decoder under a C library and its sanitizers. Reads plans
 * from standard input, each as u32 length, u32 files and bytes, decodes them
 * from a buffer that ends where they end, and prints how many were accepted.
 *
 *	gcc -DHOSTED -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
 *		-I.. fuzz.c ../plan.c ../payload.c
 */
#include <stdio.h>
#include <stdlib.h>

#include "plan.h"

static unsigned long touched;

static void read_list(struct blob list)
{
	for (uint32_t i = 0; i < list.count; i++) {
		struct str s = blob_str(&list);

		for (uint32_t k = 0; k <= s.n; k++)
			touched += (unsigned char)s.s[k];
	}
}

static void read_bytes(struct blob b)
{
	for (uint32_t i = 0; i < b.n; i++)
		touched += b.p[i];
}

/* Reads everything that the interpreter would. */
static void use(const struct op *op)
{
	struct blob list;

	switch (op->kind) {
	case OP_MONITOR:
		for (int i = 0; i < 16; i++)
			touched += op->monitor.boot_id[i];
		break;
	case OP_EXEC:
		read_list(op->exec.paths);
		read_list(op->exec.args);
		read_list(op->exec.env);
		break;
	case OP_HOOK:
		read_list(op->hook.args);
		read_list(op->hook.env);
		read_bytes(op->hook.state);
		break;
	case OP_AFFINITY:
	case OP_MEMORY_POLICY:
		read_bytes(op->mask.set);
		break;
	case OP_LEAVE:
		list = op->leave.keep;
		for (uint32_t i = 0; i < list.count; i++)
			touched += blob_u32(&list);
		break;
	case OP_SECCOMP:
		read_bytes(op->seccomp.filter);
		break;
	case OP_USER:
		list = op->user.groups;
		for (uint32_t i = 0; i < list.count; i++)
			touched += blob_u32(&list);
		break;
	case OP_FILESYSTEM:
		list = op->fs.params;
		for (uint32_t i = 0; i < list.count; i++) {
			touched += blob_u32(&list) + blob_u32(&list);
			touched += blob_str(&list).n + blob_str(&list).n;
		}
		break;
	}
}

static int try(const uint8_t *p, uint32_t len, uint32_t files)
{
	struct plan plan;
	struct refusal why;
	struct walk w = { .plan = &plan, .at = PLAN_HEADER };
	struct op op;
	uint32_t steps = 0;

	if (plan_open(&plan, p, len, files) < 0 || plan_check(&plan, &why) < 0)
		return 0;
	while (plan_next(&w, &op) > 0) {
		steps++;
		use(&op);
	}
	if (steps != plan.steps)
		abort();
	return 1;
}

int main(void)
{
	uint32_t head[2];
	unsigned long all = 0, fine = 0;

	while (fread(head, sizeof head, 1, stdin) == 1) {
		uint8_t *p = malloc(head[0] ? head[0] : 1);

		if (head[0] && fread(p, head[0], 1, stdin) != 1)
			abort();
		fine += (unsigned long)try(p, head[0], head[1]);
		all++;
		free(p);
	}
	printf("%lu of %lu accepted\n", fine, all);
	fprintf(stderr, "%lu\n", touched);
	return 0;
}
