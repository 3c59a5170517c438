/*
 * payload.c - the fields of each operation. No length is trusted, nothing is
 * allocated, no text is parsed; strings and lists stay where they are.
 */
#include "cursor.h"
#include "sys.h"

static void check(struct cur *c, int fine)
{
	if (!fine)
		c->bad = 1;
}

static uint32_t get_fd(struct cur *c, int may_lack)
{
	uint32_t fd = get32(c);

	check(c, fd == NO_FD ? may_lack : fd < c->files);
	return fd;
}

static struct blob get_bytes(struct cur *c, uint32_t limit)
{
	struct blob b = { 0 };

	b.n = get32(c);
	check(c, b.n <= limit);
	b.p = take(c, b.n);
	return b;
}

static struct str get_str(struct cur *c, uint32_t limit)
{
	struct blob b = get_bytes(c, limit);
	const uint8_t *nul = take(c, 1);
	struct str s = { "", 0 };

	if (c->bad)
		return s;
	check(c, *nul == 0);
	for (uint32_t i = 0; i < b.n; i++)
		check(c, b.p[i] != 0);
	s.s = (const char *)b.p;
	s.n = b.n;
	return s;
}

/* An absolute path without empty, "." and ".." components; "/" itself. */
static struct str get_path(struct cur *c)
{
	struct str s = get_str(c, MAX_PATH);
	uint32_t i = 0;

	check(c, s.n > 0 && s.s[0] == '/');
	if (c->bad || s.n == 1)
		return s;
	while (i < s.n) {
		uint32_t from = ++i;

		while (i < s.n && s.s[i] != '/')
			i++;
		check(c, i > from);
		check(c, !(i == from + 1 && s.s[from] == '.'));
		check(c, !(i == from + 2 && s.s[from] == '.' && s.s[from + 1] == '.'));
	}
	return s;
}

/* A single name, as of a file: no slash, not "." or "..". */
static struct str get_name(struct cur *c, uint32_t limit)
{
	struct str s = get_str(c, limit);

	check(c, s.n > 0 && !(s.n == 1 && s.s[0] == '.'));
	check(c, !(s.n == 2 && s.s[0] == '.' && s.s[1] == '.'));
	for (uint32_t i = 0; i < s.n; i++)
		check(c, s.s[i] != '/');
	return s;
}

static struct blob get_list(struct cur *c, uint32_t limit)
{
	struct blob b = { 0 };

	b.count = get32(c);
	check(c, b.count <= limit);
	b.p = c->p;
	for (uint32_t i = 0; i < b.count && !c->bad; i++)
		get_str(c, MAX_STRING);
	b.n = (uint32_t)(c->p - b.p);
	return b;
}

/* A list of numbers. */
static struct blob get_numbers(struct cur *c, uint32_t limit)
{
	struct blob b = { 0 };

	b.count = get32(c);
	check(c, b.count <= limit);
	b.p = take(c, 4 * (size_t)b.count);
	b.n = c->bad ? 0 : 4 * b.count;
	return b;
}

/* A set in whole words of the kernel's. */
static struct blob get_mask(struct cur *c)
{
	struct blob b = get_bytes(c, MAX_MASK);

	check(c, b.n % 8 == 0);
	return b;
}

static struct attr get_attr(struct cur *c)
{
	struct attr a;

	a.set = get64(c);
	a.clear = get64(c);
	a.propagation = get64(c);
	a.recursive = get32(c);
	return a;
}

static void get_node(struct cur *c, struct op *op)
{
	op->node.mode = get32(c);
	op->node.major = get32(c);
	op->node.minor = get32(c);
	op->node.uid = get32(c);
	op->node.gid = get32(c);
	op->node.path = get_path(c);
}

static void get_fs(struct cur *c, struct op *op)
{
	op->fs.type = get_name(c, MAX_NAME);
	op->fs.target = get_path(c);
	op->fs.create = get32(c);
	check(c, op->fs.create <= CREATE_FILE);
	op->fs.attrs = get64(c);
	op->fs.params.count = get32(c);
	check(c, op->fs.params.count <= MAX_PARAMS);
	op->fs.params.p = c->p;
	for (uint32_t i = 0; i < op->fs.params.count && !c->bad; i++) {
		check(c, get32(c) <= PARAM_FD);
		get_fd(c, 1);
		get_str(c, MAX_NAME);
		get_str(c, MAX_PATH);
	}
	op->fs.params.n = (uint32_t)(c->p - op->fs.params.p);
}

static void get_bind(struct cur *c, struct op *op)
{
	op->fd = get_fd(c, 1);
	op->bind.create = get32(c);
	check(c, op->bind.create <= CREATE_FILE);
	op->bind.recursive = get32(c);
	op->bind.major = get32(c);
	op->bind.minor = get32(c);
	op->bind.inode = get64(c);
	op->bind.attrs.count = get32(c);
	check(c, op->bind.attrs.count <= MAX_ATTRS);
	op->bind.attrs.p = c->p;
	for (uint32_t i = 0; i < op->bind.attrs.count && !c->bad; i++)
		get_attr(c);
	op->bind.attrs.n = (uint32_t)(c->p - op->bind.attrs.p);
	op->bind.source = get_path(c);
	op->bind.target = get_path(c);
}

static void get_monitor_op(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_MONITOR:
		op->monitor.flags = get32(c);
		op->monitor.gate_ms = get32(c);
		op->monitor.drain_ms = get32(c);
		op->monitor.uid = get32(c);
		op->monitor.run = get64(c);
		op->monitor.boot_id = take(c, 16);
		check(c, op->monitor.flags < 2 * QUIET);
		break;
	case OP_SHIM_CGROUP:
		op->fd = get_fd(c, 0);
		op->dir = get32(c);
		break;
	case OP_LOG:
		op->fd = get_fd(c, 0);
		op->log.files = get32(c);
		op->log.bytes = get64(c);
		op->log.offset = get64(c);
		op->log.name = get_name(c, MAX_LOG_NAME);
		check(c, op->log.files >= 1 && op->log.files <= 99 && op->log.bytes >= 4096);
		break;
	case OP_LEAVE:
		for (int i = 0; i < 3; i++)
			op->leave.std[i] = get_fd(c, 1);
		op->leave.keep = get_numbers(c, MAX_KEEP);
		for (struct blob keep = op->leave.keep; keep.n && !c->bad;)
			check(c, blob_u32(&keep) < c->files);
		break;
	case OP_DEADLINE:
		op->number = get32(c);
		break;
	case OP_OWNER:
		op->owner.uid = get32(c);
		op->owner.gid = get32(c);
		break;
	case OP_LOG_POLICY:
		op->policy.non_blocking = get32(c);
		op->policy.buffer = get32(c);
		op->policy.max_age = get32(c);
		check(c, !op->policy.non_blocking ||
				 (op->policy.buffer >= MIN_BUFFER && op->policy.buffer <= MAX_BUFFER));
		break;
	default: /* LOCK, RECORD, LISTEN, OOM_COUNTER */
		op->fd = get_fd(c, 0);
	}
}

static void get_mount_op(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_PROPAGATION:
		op->flags = get64(c);
		break;
	case OP_ROOT:
		op->fd = get_fd(c, 0);
		op->attach.attr = get_attr(c);
		break;
	case OP_ATTACH:
		op->fd = get_fd(c, 0);
		op->attach.create = get32(c);
		check(c, op->attach.create <= CREATE_FILE);
		op->attach.attr = get_attr(c);
		op->attach.target = get_path(c);
		break;
	case OP_ROOT_HERE:
	case OP_CHROOT:
		op->fd = get_fd(c, 0);
		break;
	case OP_SET_ATTR:
		op->attach.attr = get_attr(c);
		op->attach.target = get_path(c);
		break;
	case OP_FILESYSTEM:
		get_fs(c, op);
		break;
	case OP_BIND:
		get_bind(c, op);
		break;
	case OP_NODE:
		get_node(c, op);
		break;
	case OP_SYMLINK:
		op->two.a = get_path(c);
		op->two.b = get_str(c, MAX_PATH);
		break;
	default: /* CONSOLE, PTY */
		op->console.rows = get16(c);
		op->console.cols = get16(c);
	}
}

static void get_cover_op(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_HOSTNAME:
	case OP_DOMAINNAME:
		op->two.a = get_str(c, MAX_NAME);
		break;
	case OP_SYSCTL:
		op->two.a = get_str(c, MAX_PATH);
		op->two.b = get_str(c, MAX_PATH);
		break;
	case OP_MASK:
		op->fd = get_fd(c, 1);
		op->two.a = get_path(c);
		break;
	case OP_READ_ONLY:
		op->two.a = get_path(c);
		break;
	default: /* LINK_UP */
		op->two.a = get_name(c, 15);
	}
}

static void get_identity_op(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_CAP_BOUND:
		op->caps.effective = get64(c);
		break;
	case OP_USER:
		op->user.uid = get32(c);
		op->user.gid = get32(c);
		op->user.keep_caps = get32(c);
		op->user.groups = get_numbers(c, MAX_GROUPS);
		break;
	case OP_CAP_SET:
		op->caps.effective = get64(c);
		op->caps.permitted = get64(c);
		op->caps.inheritable = get64(c);
		op->caps.ambient = get64(c);
		break;
	case OP_SECCOMP:
		op->seccomp.flags = get32(c);
		op->seccomp.filter = get_bytes(c, MAX_FILTER);
		check(c, op->seccomp.filter.n > 0 && op->seccomp.filter.n % 8 == 0);
		break;
	default: /* CHDIR */
		op->chdir.create = get32(c);
		op->chdir.uid = get32(c);
		op->chdir.gid = get32(c);
		op->chdir.path = get_path(c);
	}
}

/* What the attributes of security modules are called; nothing else of /proc is
 * reached through a label. One string: an array of them would need relocations. */
static int is_label(struct str s)
{
	static const char names[] = "exec\0apparmor/exec\0keycreate\0sockcreate\0fscreate\0";

	for (const char *name = names; *name; name += strlen(name) + 1)
		if (strlen(name) == s.n && memcmp(name, s.s, s.n) == 0)
			return 1;
	return 0;
}

static void get_sched(struct cur *c, struct op *op)
{
	op->sched.policy = get32(c);
	op->sched.flags = get64(c);
	op->sched.nice = (int32_t)get32(c);
	op->sched.priority = get32(c);
	op->sched.runtime = get64(c);
	op->sched.deadline = get64(c);
	op->sched.period = get64(c);
}

static void get_hook(struct cur *c, struct op *op)
{
	op->hook.timeout_ms = get32(c);
	op->hook.pid_at = get32(c);
	op->hook.path = get_str(c, MAX_PATH);
	check(c, op->hook.path.s[0] == '/');
	op->hook.args = get_list(c, MAX_ARGS);
	op->hook.env = get_list(c, MAX_ARGS);
	op->hook.state = get_bytes(c, MAX_DATA);
	check(c, op->hook.args.count > 0 &&
			 (uint64_t)op->hook.pid_at + PID_ROOM <= op->hook.state.n);
}

/* What the program is given, beside who it is. */
static void get_setting_op(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_MEMORY_POLICY:
		op->mask.mode = get32(c);
		op->mask.set = get_mask(c);
		break;
	case OP_AFFINITY:
		op->mask.set = get_mask(c);
		check(c, op->mask.set.n > 0);
		break;
	case OP_SCHEDULER:
		get_sched(c, op);
		break;
	case OP_IO_PRIORITY:
		op->number = get32(c);
		break;
	case OP_KEYRING:
		op->two.a = get_str(c, MAX_RING);
		break;
	case OP_LABEL:
		op->two.a = get_str(c, MAX_NAME);
		op->two.b = get_str(c, MAX_PATH);
		check(c, is_label(op->two.a));
		break;
	default: /* HOOK */
		get_hook(c, op);
	}
}

static void get_process_op(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_JOIN:
		op->fd = get_fd(c, 0);
		op->flags = get32(c);
		break;
	case OP_UNSHARE:
		op->flags = get32(c);
		break;
	case OP_CLONE:
		op->flags = get64(c);
		op->fd = get_fd(c, 1);
		break;
	case OP_PROC_WRITE:
		op->two.a = get_name(c, MAX_NAME);
		op->two.b = get_str(c, MAX_PATH);
		break;
	case OP_CGROUP:
	case OP_START_GATE:
		op->fd = get_fd(c, 0);
		break;
	case OP_RLIMIT:
		op->rlimit.resource = get32(c);
		op->rlimit.soft = get64(c);
		op->rlimit.hard = get64(c);
		break;
	case OP_EXEC:
		op->exec.paths = get_list(c, MAX_TRIES);
		op->exec.args = get_list(c, MAX_ARGS);
		op->exec.env = get_list(c, MAX_ARGS);
		check(c, op->exec.paths.count > 0 && op->exec.args.count > 0);
		break;
	default: /* SYNC, UMASK, PERSONALITY */
		op->number = get32(c);
	}
}

static void get_payload(struct cur *c, struct op *op)
{
	switch (op->kind) {
	case OP_MONITOR ... OP_OWNER:
		get_monitor_op(c, op);
		break;
	case OP_PROPAGATION ... OP_SET_ATTR:
	case OP_CONSOLE:
	case OP_PTY ... OP_BIND:
		get_mount_op(c, op);
		break;
	case OP_HOSTNAME ... OP_LINK_UP:
		get_cover_op(c, op);
		break;
	case OP_CAP_BOUND:
	case OP_USER:
	case OP_CAP_SET:
	case OP_SECCOMP:
	case OP_CHDIR:
		get_identity_op(c, op);
		break;
	case OP_AFFINITY ... OP_KEYRING:
	case OP_HOOK:
	case OP_LABEL:
		get_setting_op(c, op);
		break;
	case OP_PIVOT:
	case OP_MOVE_ROOT:
	case OP_GATE:
	case OP_NO_NEW_PRIVS:
	case OP_SWEEP:
		break;
	default:
		get_process_op(c, op);
	}
}

int payload_get(struct op *op, const uint8_t *p, uint32_t len, uint32_t files)
{
	struct cur c = { .p = p, .end = p + len, .files = files };

	get_payload(&c, op);
	return c.bad || c.p != c.end ? -EINVAL : 0;
}

struct str blob_str(struct blob *b)
{
	struct cur c = { .p = b->p, .end = b->p + b->n };
	struct str s = get_str(&c, MAX_STRING);

	b->n -= (uint32_t)(c.p - b->p);
	b->p = c.p;
	return s;
}

uint32_t blob_u32(struct blob *b)
{
	struct cur c = { .p = b->p, .end = b->p + b->n };
	uint32_t v = get32(&c);

	b->n -= (uint32_t)(c.p - b->p);
	b->p = c.p;
	return v;
}

struct attr blob_attr(struct blob *b)
{
	struct cur c = { .p = b->p, .end = b->p + b->n };
	struct attr a = get_attr(&c);

	b->n -= (uint32_t)(c.p - b->p);
	b->p = c.p;
	return a;
}
