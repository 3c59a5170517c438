/*
 * sys.h - the kernel, without a C library.
 *
 * The shim is freestanding: a static C library would cost 50 kB of private
 * memory for each container. Everything here is a bare system call; errors
 * come back as negative errno. Layouts are the kernel's own (linux headers)
 * except where those clash or are newer than Debian's.
 */
#ifndef GANTRY_SYS_H
#define GANTRY_SYS_H

#include <stddef.h>
#include <stdint.h>

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <linux/time_types.h>
#include <linux/uio.h>

#if defined(__x86_64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
#error "gantry-shim knows x86_64 and aarch64"
#endif

#define L(x) ((long)(x))
#define SYS0(n) sys6(n, 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) sys6(n, L(a), 0, 0, 0, 0, 0)
#define SYS2(n, a, b) sys6(n, L(a), L(b), 0, 0, 0, 0)
#define SYS3(n, a, b, c) sys6(n, L(a), L(b), L(c), 0, 0, 0)
#define SYS4(n, a, b, c, d) sys6(n, L(a), L(b), L(c), L(d), 0, 0)
#define SYS5(n, a, b, c, d, e) sys6(n, L(a), L(b), L(c), L(d), L(e), 0)
#define SYS6(n, a, b, c, d, e, f) sys6(n, L(a), L(b), L(c), L(d), L(e), L(f))

/* Numbers that Debian's headers lack or spread over clashing files. */
#define SIG_CHLD 17
#define SIG_KILL 9
#define SIG_CONT 18
#define SIG_STOP 19
#define SIGNALS 64
#define AF_UNIX 1
#define AF_INET 2
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_SEQPACKET 5
#define SOCK_NONBLOCK 04000
#define SOCK_CLOEXEC 02000000
#define SOL_SOCKET 1
#define SO_PEERCRED 17
#define SCM_RIGHTS 1
#define MSG_DONTWAIT 0x40
#define MSG_CTRUNC 0x08
#define MSG_TRUNC 0x20
#define MSG_NOSIGNAL 0x4000
#define MSG_CMSG_CLOEXEC 0x40000000
#define POLLIN 0x001
#define POLLOUT 0x004
#define POLLERR 0x008
#define POLLHUP 0x010
#define POLLNVAL 0x020
#define LOCK_EX 2
#define LOCK_NB 4
#define MNT_DETACH 2
#define P_PID 1
#define WNOHANG 1
#define WSTOPPED 2
#define WEXITED 4
#define WNOWAIT 0x01000000
#define CLD_EXITED 1
#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
#define PROC_MAGIC 0x9fa0
#define PROC_ROOT_INO 1
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
/* linux/stat.h keeps these back from programs with a C library. */
#ifndef S_IFMT
#define S_IFMT 00170000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#endif
#define MAP_ANON_PRIVATE 0x22
#define MAP_ANON_SHARED 0x21
#define MAP_NORESERVE 0x4000
#define PROT_READ 1
#define PROT_WRITE 2
#define SECCOMP_SET_FILTER 1

struct msghdr {
	void *msg_name;
	int msg_namelen;
	struct iovec *msg_iov;
	size_t msg_iovlen;
	void *msg_control;
	size_t msg_controllen;
	unsigned int msg_flags;
};

struct cmsghdr {
	size_t cmsg_len;
	int cmsg_level;
	int cmsg_type;
};

struct pollfd {
	int fd;
	short events;
	short revents;
};

struct ucred {
	uint32_t pid, uid, gid;
};

/* The head of siginfo_t as waitid fills it, padded to its 128 bytes. */
struct waitinfo {
	int signo, err, code, pad;
	int pid;
	uint32_t uid;
	int status;
	int rest[25];
};

struct rlimit64 {
	uint64_t soft, hard;
};

/* A filter may let nobody leave: then the process ends by a fault, rather than
 * try for ever. */
static inline void sys_exit(int code)
{
	SYS1(__NR_exit_group, code);
	for (;;)
		__builtin_trap();
}

static inline long sys_close(int fd) { return SYS1(__NR_close, fd); }

static inline long sys_read(int fd, void *b, size_t n)
{
	long r;

	do
		r = SYS3(__NR_read, fd, b, n);
	while (r == -EINTR);
	return r;
}

static inline long sys_write(int fd, const void *b, size_t n)
{
	long r;

	do
		r = SYS3(__NR_write, fd, b, n);
	while (r == -EINTR);
	return r;
}

static inline long sys_openat(int dir, const char *path, int flags, unsigned mode)
{
	return SYS4(__NR_openat, dir, path, flags, mode);
}

static inline long sys_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags, .resolve = resolve };

	return SYS4(__NR_openat2, dir, path, &how, sizeof how);
}

static inline long sys_prctl(int op, unsigned long a, unsigned long b, unsigned long c)
{
	return SYS5(__NR_prctl, op, a, b, c, 0);
}

static inline long sys_fcntl(int fd, int op, long arg) { return SYS3(__NR_fcntl, fd, op, arg); }

static inline long sys_ioctl(int fd, unsigned long op, void *arg)
{
	return SYS3(__NR_ioctl, fd, op, arg);
}

static inline void *sys_mmap(size_t n)
{
	return (void *)SYS6(__NR_mmap, 0, n, PROT_READ | PROT_WRITE, MAP_ANON_PRIVATE, -1, 0);
}

static inline int sys_failed(const void *p) { return (unsigned long)p > -4096UL; }

static inline int64_t sys_clock(int clock)
{
	struct __kernel_timespec t = { 0 };

	SYS2(__NR_clock_gettime, clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* mem.c, or the C library in a hosted build. */
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

#endif
