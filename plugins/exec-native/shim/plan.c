/*
 * plan.c - the plan as a whole: its header, its steps, and what must stand
 * where. A plan that plan_check passed is decoded again, step by step, where
 * it is run.
 */
#include "plan.h"

#include "cursor.h"
#include "sys.h"

#define AT(stage) (1u << (stage))

/* The stages in which a kind may stand; 0 for a kind this shim does not know. */
static unsigned stages_of(uint16_t kind)
{
	switch (kind) {
	case OP_MONITOR ... OP_OWNER:
		return AT(STAGE_MONITOR);
	case OP_JOIN:
	case OP_UNSHARE:
		return AT(STAGE_JOIN) | AT(STAGE_CHILD);
	case OP_CLONE:
		return AT(STAGE_CLONE);
	case OP_PROC_WRITE:
		return AT(STAGE_JOIN) | AT(STAGE_PARENT) | AT(STAGE_CHILD);
	case OP_CGROUP:
		return AT(STAGE_JOIN) | AT(STAGE_CHILD);
	case OP_AFFINITY:
		return AT(STAGE_JOIN) | AT(STAGE_CHILD);
	case OP_RLIMIT:
	case OP_SCHEDULER ... OP_MEMORY_POLICY:
		return AT(STAGE_CHILD) | AT(STAGE_IDENTITY);
	case OP_KEYRING:
		return AT(STAGE_CHILD) | AT(STAGE_MOUNTS) | AT(STAGE_COVER) | AT(STAGE_GATE) |
		       AT(STAGE_IDENTITY);
	case OP_PROPAGATION ... OP_SYMLINK:
	case OP_PIVOT:
	case OP_CONSOLE:
	case OP_MOVE_ROOT:
	case OP_ROOT_HERE:
	case OP_BIND:
		return AT(STAGE_MOUNTS);
	case OP_CHROOT:
		return AT(STAGE_CHILD) | AT(STAGE_MOUNTS);
	case OP_SET_ATTR:
		return AT(STAGE_MOUNTS) | AT(STAGE_COVER);
	case OP_HOSTNAME ... OP_LINK_UP:
		return AT(STAGE_COVER);
	case OP_HOOK:
		return AT(STAGE_MOUNTS) | AT(STAGE_GATE) | AT(STAGE_IDENTITY);
	case OP_LABEL:
		return AT(STAGE_COVER) | AT(STAGE_GATE) | AT(STAGE_IDENTITY);
	case OP_SYNC:
	case OP_PTY:
		return AT(STAGE_CHILD) | AT(STAGE_MOUNTS) | AT(STAGE_COVER) | AT(STAGE_GATE);
	case OP_GATE:
	case OP_START_GATE:
		return AT(STAGE_GATE);
	case OP_USER:
		return AT(STAGE_CHILD) | AT(STAGE_IDENTITY);
	case OP_CAP_BOUND:
	case OP_CAP_SET:
	case OP_NO_NEW_PRIVS:
	case OP_UMASK:
	case OP_PERSONALITY:
		return AT(STAGE_IDENTITY);
	case OP_SECCOMP:
		return AT(STAGE_IDENTITY) | AT(STAGE_EXEC);
	case OP_CHDIR:
		return AT(STAGE_MOUNTS) | AT(STAGE_COVER) | AT(STAGE_IDENTITY) | AT(STAGE_EXEC);
	case OP_SWEEP:
	case OP_EXEC:
		return AT(STAGE_EXEC);
	}
	return 0;
}

int plan_open(struct plan *plan, const uint8_t *p, size_t len, uint32_t files)
{
	struct cur c = { .p = p, .end = p + len };

	if (len < PLAN_HEADER || len > MAX_PLAN || get32(&c) != PLAN_MAGIC)
		return -EINVAL;
	if (get16(&c) != PLAN_VERSION || get16(&c) != PLAN_HEADER)
		return -ENOSYS;
	plan->p = p;
	plan->len = get32(&c);
	plan->steps = get32(&c);
	plan->files = get32(&c);
	if (plan->len != len || plan->steps > MAX_STEPS || plan->files != files || files > MAX_FILES)
		return -EINVAL;
	return 0;
}

int plan_next(struct walk *w, struct op *op)
{
	const struct plan *plan = w->plan;
	struct cur c = { .p = plan->p + w->at, .end = plan->p + plan->len };
	const uint8_t *p;
	uint32_t len;

	if (w->index == plan->steps)
		return w->at == plan->len ? 0 : -EINVAL;
	memset(op, 0, sizeof *op);
	op->index = w->index;
	op->fd = NO_FD;
	op->kind = get16(&c);
	p = take(&c, 2);
	if (!p || p[0] > STAGE_EXEC || p[1] > 1)
		return -EINVAL;
	op->stage = p[0];
	op->optional = p[1];
	len = get32(&c);
	p = take(&c, ((size_t)len + 7) & ~(size_t)7);
	if (!p)
		return -EINVAL;
	if (!stages_of(op->kind))
		return -ENOSYS;
	if (!(stages_of(op->kind) & AT(op->stage)))
		return -EINVAL;
	w->at = (uint32_t)(c.p - plan->p);
	w->index++;
	return payload_get(op, p, len, plan->files) < 0 ? -EINVAL : 1;
}

/* How often the kinds occur that bind the others together. */
struct counts {
	unsigned monitor, leave, clone, root, pivot, sweep, exec;
};

static int needs_root(uint16_t kind)
{
	switch (kind) {
	case OP_ATTACH ... OP_PIVOT:
	case OP_MASK:
	case OP_READ_ONLY:
	case OP_CONSOLE:
	case OP_MOVE_ROOT:
	case OP_BIND:
		return 1;
	}
	return 0;
}

static int check_order(const struct op *op, struct counts *n)
{
	if ((op->kind == OP_MONITOR || op->kind == OP_LEAVE) != (op->index == 0) || n->exec)
		return -EINVAL;
	if (n->leave ? op->stage == STAGE_MONITOR : op->kind == OP_START_GATE)
		return -EINVAL; /* who leaves needs no more settings, who stays has its own gate */
	if (op->stage == STAGE_EXEC && (op->kind == OP_SWEEP) != (n->sweep == 0))
		return -EINVAL;
	if (op->stage > STAGE_CLONE && !n->clone)
		return -EINVAL;
	if (needs_root(op->kind) && !n->root)
		return -EINVAL;
	if ((op->kind == OP_CHDIR || op->kind == OP_SWEEP) && n->root != n->pivot)
		return -EINVAL;
	if (op->kind == OP_BIND && n->pivot)
		return -EINVAL; /* its source is a path of the host's */
	n->monitor += op->kind == OP_MONITOR;
	n->leave += op->kind == OP_LEAVE;
	n->clone += op->kind == OP_CLONE;
	n->root += op->kind == OP_ROOT || op->kind == OP_ROOT_HERE;
	n->pivot += op->kind == OP_PIVOT || op->kind == OP_MOVE_ROOT ||
		    (op->kind == OP_CHROOT && op->stage == STAGE_MOUNTS);
	n->sweep += op->kind == OP_SWEEP;
	n->exec += op->kind == OP_EXEC;
	if (n->clone > 1 || n->root > 1 || n->pivot > 1)
		return -EINVAL;
	return 0;
}

int plan_check(const struct plan *plan, struct refusal *why)
{
	struct walk w = { .plan = plan, .at = PLAN_HEADER };
	struct counts n = { 0 };
	struct op op = { 0 };
	uint8_t stage = STAGE_MONITOR;
	int r;

	while ((r = plan_next(&w, &op)) > 0) {
		if (op.stage < stage)
			r = -EINVAL;
		stage = op.stage;
		if (r > 0)
			r = check_order(&op, &n);
		if (r < 0)
			break;
	}
	if (r == 0 && !n.exec)
		r = -EINVAL;
	*why = (struct refusal){ .index = op.index, .kind = op.kind, .stage = op.stage, .err = r };
	return r;
}
