/*
 * gantry-init - the first process of a container that was asked for one:
 *
 *	gantry-init [--] PROGRAM [ARGUMENT...]
 *
 * Starts the program in a process group of its own, in the foreground of the
 * terminal if there is one, hands every signal on to it, takes in whatever
 * process has lost its parent, and ends as the program ended: its exit code, or
 * 128 and the signal. Freestanding, as the shim is (../shim/sys.h).
 *
 *	gantry-init --hold
 *
 * is something else: a process that keeps the user namespace it was made in,
 * before anything of a container runs there and after its end. It holds the
 * locked file 4 as long as it lives, which says so, and begins when a byte comes
 * through the pipe 3: a driver that dies before leaves nothing behind.
 */
#include "sys.h"

#define SIG_BLOCK 0
#define SIG_SETMASK 2
#define SIG_TTIN 21
#define SIG_TTOU 22
#define SIGSET 8 /* bytes of the kernel's set */
#define TIOCSPGRP 0x5410UL
#define MAX_PATH 4096

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

void *memset(void *to, int c, size_t n)
{
	volatile uint8_t *p = to;

	while (n--)
		*p++ = (uint8_t)c;
	return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	volatile uint8_t *a = to;
	const uint8_t *b = from;

	while (n--)
		*a++ = *b++;
	return to;
}

static size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static void say(const char *s) { sys_write(2, s, length(s)); }

/* The value of PATH, as execvp takes it. */
static const char *search_path(char *const *env)
{
	for (; *env; env++) {
		const char *e = *env;

		if (e[0] == 'P' && e[1] == 'A' && e[2] == 'T' && e[3] == 'H' && e[4] == '=')
			return e + 5;
	}
	return default_path;
}

static int has_slash(const char *s)
{
	while (*s && *s != '/')
		s++;
	return *s;
}

/* As execvp: what is not there leaves the next place to look, what may not be
 * executed is remembered. Gives the errno. */
static long execute(char *const *args, char *const *env)
{
	char file[MAX_PATH];
	size_t name = length(args[0]) + 1;
	long r = -ENOENT, denied = 0;

	if (has_slash(args[0]) || name == 1)
		return name == 1 ? -ENOENT : SYS3(__NR_execve, args[0], args, env);
	for (const char *at = search_path(env);; at++) {
		size_t n = 0;

		while (at[n] && at[n] != ':')
			n++;
		if (n + 1 + name <= sizeof file) {
			memcpy(file, at, n);
			file[n] = '/';
			memcpy(file + n + (n > 0), args[0], name); /* an empty one is here */
			r = SYS3(__NR_execve, file, args, env);
			denied |= r == -EACCES;
			if (r != -ENOENT && r != -ENOTDIR && r != -EACCES)
				return r;
		}
		at += n;
		if (!*at)
			return denied ? -EACCES : r;
	}
}

/* The program's life up to its exec. */
static void child(char *const *args, char *const *env, const uint64_t *mask)
{
	int self = (int)SYS0(__NR_getpid);
	long r;

	SYS2(__NR_setpgid, 0, 0);
	/* Without a terminal on 0 this does nothing; with SIGTTOU blocked it cannot
	 * stop us. */
	sys_ioctl(0, TIOCSPGRP, &self);
	SYS4(__NR_rt_sigprocmask, SIG_SETMASK, mask, 0, SIGSET);
	r = execute(args, env);
	say("gantry-init: execute ");
	say(args[0]);
	say(r == -ENOENT || r == -ENOTDIR ? ": no such file or directory\n" :
	    r == -EACCES		  ? ": permission denied\n" :
					    ": it is no program for this machine\n");
	sys_exit(r == -ENOENT || r == -ENOTDIR ? 127 : 126);
}

/* Takes in all that have ended, without WNOHANG all that will; as soon as the program
 * has, its exit code, before that -1. */
static int take_in(int program, int options)
{
	int status;
	long pid;

	while ((pid = SYS4(__NR_wait4, -1, &status, options, 0)) > 0)
		if (pid == program)
			return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
	return -1;
}

static int run(char *const *args, char *const *env)
{
	struct clone_args clone = { .exit_signal = SIG_CHLD };
	uint64_t all = ~0ULL, before = 0;
	long pid;

	/* Blocked, they wait to be taken below; none has a handler. */
	SYS4(__NR_rt_sigprocmask, SIG_BLOCK, &all, &before, SIGSET);
	if (SYS0(__NR_getpid) != 1)
		sys_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0);
	pid = SYS2(__NR_clone3, &clone, sizeof clone);
	if (pid == -ENOSYS || pid == -EPERM) /* of a filter that lets no clone3 through */
		pid = SYS5(__NR_clone, SIG_CHLD, 0, 0, 0, 0);
	if (pid == 0)
		child(args, env, &before);
	if (pid < 0) {
		say("gantry-init: no process could be made\n");
		return 125;
	}
	for (;;) {
		long sig = SYS4(__NR_rt_sigtimedwait, &all, 0, 0, SIGSET);
		int code;

		/* The terminal's word to who is in its background is ours alone. */
		if (sig > 0 && sig != SIG_CHLD && sig != SIG_TTIN && sig != SIG_TTOU)
			SYS2(__NR_kill, pid, sig);
		/* Under a filter that lets it wait for no signal, it passes on none. */
		code = take_in((int)pid, sig > 0 || sig == -EINTR ? WNOHANG : 0);
		if (code >= 0)
			return code;
	}
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

__attribute__((noreturn)) static void hold(void)
{
	uint64_t all = ~0ULL;
	char go;

	if (SYS3(__NR_read, 3, &go, 1) != 1)
		sys_exit(1);
	SYS1(__NR_close, 3);
	SYS4(__NR_rt_sigprocmask, SIG_BLOCK, &all, 0, SIGSET);
	for (;;)
		SYS4(__NR_rt_sigtimedwait, &all, 0, 0, SIGSET);
}

void start_c(long *sp);

__attribute__((noreturn, used)) void start_c(long *sp)
{
	long argc = sp[0];
	char **argv = (char **)(sp + 1), **env = argv + argc + 1;

	argv++, argc--;
	if (argc == 1 && same(argv[0], "--hold"))
		hold();
	if (argc > 0 && argv[0][0] == '-' && argv[0][1] == '-' && !argv[0][2])
		argv++, argc--;
	if (argc <= 0) {
		say("gantry-init: no program was named\n");
		sys_exit(125);
	}
	sys_exit(run(argv, env));
	__builtin_unreachable();
}

#if defined(__x86_64__)
__asm__(".text\n.globl _start\n.type _start,@function\n_start:\n"
	"xor %ebp,%ebp\nmov %rsp,%rdi\nand $-16,%rsp\ncall start_c\nhlt\n");
#else
__asm__(".text\n.globl _start\n.type _start,%function\n_start:\n"
	"mov x29,#0\nmov x30,#0\nmov x0,sp\nbl start_c\nbrk #0\n");
#endif
