/*
 * ops_identity.c - who the program is and what it may: ids, capabilities,
 * seccomp.
 */
#include "shim.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

enum { CAPS = 64 };

static int cap_bound(uint64_t keep)
{
	for (unsigned cap = 0; cap < CAPS; cap++) {
		long r = keep >> cap & 1 ? 0 : sys_prctl(PR_CAPBSET_DROP, cap, 0, 0);

		/* Who may not drop may have nothing to drop. */
		if (r == -EPERM && sys_prctl(PR_CAPBSET_READ, cap, 0, 0) == 0)
			r = 0;
		if (r == -EINVAL) /* beyond the kernel's last one */
			break;
		if (r < 0)
			return (int)r;
	}
	return 0;
}

static int cap_set(const struct op *op)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	long r;

	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(op->caps.effective >> 32 * i);
		data[i].permitted = (uint32_t)(op->caps.permitted >> 32 * i);
		data[i].inheritable = (uint32_t)(op->caps.inheritable >> 32 * i);
	}
	r = SYS2(__NR_capset, &head, data);
	if (r == 0)
		r = sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0);
	for (unsigned cap = 0; cap < CAPS && r == 0; cap++)
		if (op->caps.ambient >> cap & 1)
			r = sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0);
	return (int)r;
}

/* The pipes become the user's, who may open them again as /dev/stdout. */
static int own_streams(const struct init *in, const struct op *op)
{
	for (int i = 0; i < 3; i++) {
		int fd = in->console >= 0 ? in->console : in->std[i];
		long r = fd < 0 || is_null(fd) ? 0 : SYS3(__NR_fchown, fd, op->user.uid, op->user.gid);

		/* What a caller has handed over may be anything; and in a user
		 * namespace the monitor's pipes belong to nobody. */
		if (r < 0 && r != -EPERM && (in->console >= 0 || !in->leaving))
			return (int)r;
	}
	return 0;
}

static int user(const struct init *in, const struct op *op)
{
	struct blob list = op->user.groups;
	uint32_t groups[MAX_GROUPS];
	long r = 0;

	for (uint32_t i = 0; i < list.count; i++)
		groups[i] = blob_u32(&list);
	if (op->stage == STAGE_IDENTITY)
		r = own_streams(in, op);
	if (r == 0)
		r = sys_prctl(PR_SET_KEEPCAPS, op->user.keep_caps != 0, 0, 0);
	if (r == 0)
		r = SYS2(__NR_setgroups, list.count, groups);
	if (r == -EPERM && list.count == 0)
		r = 0; /* denied to a user namespace that an ordinary user has made */
	if (r == 0)
		r = SYS3(__NR_setresgid, op->user.gid, op->user.gid, op->user.gid);
	if (r == 0)
		r = SYS3(__NR_setresuid, op->user.uid, op->user.uid, op->user.uid);
	if (r == 0)
		r = sys_prctl(PR_SET_KEEPCAPS, 0, 0, 0);
	forget_dumps();
	return (int)r;
}

/* A filter with a listener: the driver is told which descriptor that will have,
 * fetches it (pidfd_getfd) and lets us go on. Sending it from here would be a
 * system call that the filter may stop. */
static int with_listener(struct init *in, const struct op *op, const struct sock_fprog *prog)
{
	struct report r = { .kind = REPORT_LISTENER, .stage = op->stage, .op = op->kind,
			    .index = op->index };
	int fd, err;

	r.code = (int32_t)sys_fcntl(in->sync, F_DUPFD_CLOEXEC, 0);
	if (r.code < 0)
		return r.code;
	sys_close(r.code);
	err = report_send(in->sync, &r, -1);
	if (err < 0)
		return err;
	fd = (int)SYS3(__NR_seccomp, SECCOMP_SET_FILTER, op->seccomp.flags, prog);
	if (fd < 0)
		return fd;
	if (fd != r.code)
		return -EBADF;
	if (in->leaving)
		return leave_wait(in, op);
	init_wait(in);
	return 0;
}

/* The filter may not let close_range through, which the sweep asks for. What no
 * operation names any more goes now; the rest, all of it the program's or ours,
 * is marked to be closed by the exec. */
static void sweep_ahead(struct init *in)
{
	close_files_of(in, STAGE_CHILD, STAGE_IDENTITY);
	path_forget(in);
	in->root = -1; /* one of them, or a way to "/" */
	if (in->mask_dir >= 0)
		sys_close(in->mask_dir);
	if (in->proc >= 0 && !in->labels)
		sys_close(in->proc);
	in->mask_dir = -1;
	in->proc = in->labels ? in->proc : -1;
	in->closing = SYS3(__NR_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
}

static int seccomp(struct init *in, const struct op *op)
{
	/* The kernel reads the instructions at any alignment. */
	struct sock_fprog prog = { .len = (uint16_t)(op->seccomp.filter.n / 8),
				   .filter = (void *)(uintptr_t)op->seccomp.filter.p };

	if (op->stage == STAGE_IDENTITY)
		sweep_ahead(in);
	if (op->seccomp.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
		return with_listener(in, op, &prog);
	return (int)SYS3(__NR_seccomp, SECCOMP_SET_FILTER, op->seccomp.flags, &prog);
}

int op_identity(struct init *in, const struct op *op)
{
	switch (op->kind) {
	case OP_CAP_BOUND:
		return cap_bound(op->caps.effective);
	case OP_USER:
		return user(in, op);
	case OP_CAP_SET:
		return cap_set(op);
	case OP_NO_NEW_PRIVS:
		return (int)sys_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0);
	case OP_SECCOMP:
		return seccomp(in, op);
	case OP_UMASK:
		in->umask_set = 1;
		SYS1(__NR_umask, op->number & 0777);
		return 0;
	case OP_PERSONALITY:
		return (int)SYS1(__NR_personality, op->number);
	}
	return -ENOSYS;
}
