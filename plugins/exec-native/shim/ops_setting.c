/*
 * ops_setting.c - how the program is run: its processors, scheduling, memory
 * policy, keyring, and the label that its exec takes.
 */
#include "shim.h"

#define IOPRIO_WHO_PROCESS 1
#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEYCTL_SETPERM 5
/* What the kernel gives a new session keyring (possessor all; user view, read
 * and link), and that the user may search it. */
#define KEYRING_PERM 0x3f1b0000u

/* struct sched_attr (linux/sched/types.h, whose sched_param clashes). */
struct sched {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static int scheduler(const struct op *op)
{
	struct sched s = { .size = sizeof s, .policy = op->sched.policy, .flags = op->sched.flags,
			   .nice = op->sched.nice, .priority = op->sched.priority,
			   .runtime = op->sched.runtime, .deadline = op->sched.deadline,
			   .period = op->sched.period };

	return (int)SYS3(__NR_sched_setattr, 0, &s, 0);
}

/* The kernel counts nodes in bits, and one more than there are. */
static int memory_policy(const struct op *op)
{
	uint64_t nodes[MAX_MASK / 8];

	memcpy(nodes, op->mask.set.p, op->mask.set.n);
	return (int)SYS3(__NR_set_mempolicy, op->mask.mode, op->mask.set.n ? nodes : NULL,
			 op->mask.set.n ? op->mask.set.n * 8 + 1 : 0);
}

/* Without it keys of the host's session would be the container's. A kernel
 * without keys has none to protect. */
static int keyring(const struct op *op)
{
	long ring = SYS5(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, op->two.a.s, 0, 0, 0);

	if (ring == -ENOSYS)
		return 0;
	return ring < 0 ? (int)ring : (int)SYS5(__NR_keyctl, KEYCTL_SETPERM, ring, KEYRING_PERM, 0, 0);
}

/* The container's own procfs: in a user namespace no whole one can be made once
 * that is covered. It is really a procfs, and no other mount is entered. */
static int visible_proc(struct init *in)
{
	uint64_t type[16] = { 0 };
	struct statx st = { 0 };
	int fd = path_open(init_root(in), "/proc", O_DIRECTORY | O_NOFOLLOW);
	long r;

	if (fd < 0)
		return fd;
	r = SYS2(__NR_fstatfs, fd, type);
	if (r == 0)
		r = SYS5(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_INO, &st);
	if (r == 0 && (type[0] != PROC_MAGIC || st.stx_ino != PROC_ROOT_INO))
		r = -EXDEV;
	if (r == 0)
		return fd;
	sys_close(fd);
	return (int)r;
}

static int write_label(int proc, const char *attr, size_t n, const struct op *op)
{
	char path[24 + 6 + MAX_NAME + 1];
	size_t at = put_number(path, (uint64_t)SYS0(__NR_getpid));

	memcpy(path + at, "/attr/", 6);
	memcpy(path + at + 6, attr, n + 1);
	return write_proc(proc, path, op->two.b.s, op->two.b.n);
}

/* Kernels before 5.8 have one directory for all security modules. */
static int label(struct init *in, const struct op *op)
{
	static const char apparmor[] = "apparmor/exec", any[] = "exec";
	int proc = init_proc(in), r;

	if (proc == -EPERM) {
		in->proc = visible_proc(in);
		proc = in->proc;
	}
	if (proc < 0)
		return proc;
	r = write_label(proc, op->two.a.s, op->two.a.n, op);
	if (r == -ENOENT && op->two.a.n == sizeof apparmor - 1 &&
	    memcmp(op->two.a.s, apparmor, sizeof apparmor) == 0)
		r = write_label(proc, any, sizeof any - 1, op);
	return r;
}

int op_setting(struct init *in, const struct op *op)
{
	switch (op->kind) {
	case OP_AFFINITY:
		return (int)SYS3(__NR_sched_setaffinity, 0, op->mask.set.n, op->mask.set.p);
	case OP_SCHEDULER:
		return scheduler(op);
	case OP_IO_PRIORITY:
		return (int)SYS3(__NR_ioprio_set, IOPRIO_WHO_PROCESS, 0, op->number);
	case OP_MEMORY_POLICY:
		return memory_policy(op);
	case OP_KEYRING:
		return keyring(op);
	case OP_LABEL:
		return label(in, op);
	}
	return -ENOSYS;
}
