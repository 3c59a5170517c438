/*
 * confine.c - the monitor gives up what it does not need once the program
 * runs: every capability, the gaining of new ones, and all system calls but
 * those of its loop. It reads what a container writes and what clients send;
 * should one of them ever take it over, there is little to be had.
 */
#include "monitor.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#else
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

/* Grouped by what needs them. */
static const uint16_t allowed[] = {
	/* the loop */
	__NR_ppoll, __NR_clock_gettime, __NR_restart_syscall, __NR_close, __NR_exit_group,
	/* streams, clients, driver */
	__NR_read, __NR_write, __NR_ioctl, __NR_accept4, __NR_getsockopt, __NR_recvfrom,
	__NR_recvmsg, __NR_sendto, __NR_sendmsg, __NR_mmap, __NR_munmap, __NR_madvise,
	/* log and record */
	__NR_writev, __NR_ftruncate, __NR_openat, __NR_unlinkat, __NR_renameat2, __NR_pwrite64,
	/* the end */
	__NR_waitid, __NR_pread64, __NR_sched_yield,
};

enum { ALLOWED = sizeof allowed / sizeof allowed[0], REFUSE = SECCOMP_RET_ERRNO | EPERM, KILL = 7 };

static void install_filter(void)
{
#ifndef HOSTED /* the sanitizers need more */
	struct sock_filter f[ALLOWED + 6 + KILL] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, REFUSE),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog prog = { .filter = f };
	int n = 4;

	if (M.limit_ms) { /* its program's group it may kill, and nothing else */
		struct sock_filter kill[KILL] = {
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_kill, 0, KILL - 1),
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)-M.pid, 0, 3),
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIG_KILL, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
			BPF_STMT(BPF_RET | BPF_K, REFUSE),
		};

		memcpy(f + n, kill, sizeof kill);
		n += KILL;
	}
	for (int i = 0; i < ALLOWED; i++)
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i],
						      (uint8_t)(ALLOWED - i), 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, REFUSE);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prog.len = (uint16_t)n;
	SYS3(__NR_seccomp, SECCOMP_SET_FILTER, 0, &prog);
#endif
}

void confine(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct left[2] = { { 0 } };

	/* The program may have become another user. */
	if (M.limit_ms)
		left[0].effective = left[0].permitted = 1u << CAP_KILL;
	sys_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0);
	sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0);
	SYS2(__NR_capset, &head, left);
	install_filter();
}
