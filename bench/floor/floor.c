/*
 * floor measures what the kernel alone charges for a container: the calls that
 * any engine has to make, made by one small process with nothing around it. What
 * gantry takes beyond that is gantry's own.
 *
 *   floor [-n ROUNDS] [-c CASE] SCRATCH [ROOTFS PROGRAM [ARGUMENT ...]]
 *
 * SCRATCH is an empty directory; a tmpfs is mounted there. Without ROOTFS the
 * container runs a program that ends at once (this one, under another name).
 * Each case is one line of JSON on stdout, in microseconds:
 *
 *   {"case":"none/v1","n":100,"min":…,"median":…,"p95":…}
 *
 * CASE measures that one alone. A case <network>/<cgroups> is a whole container, with the lines
 * <case>/<phase> below it. Networks: "none" has a fresh namespace with loopback
 * up, "prepared" joins one that was made before, with a veth on a bridge.
 *
 * It works in mount and network namespaces of its own, so that the machine's
 * links and mounts are not touched; its cgroups go at the end. Needs root.
 *
 * Build: cc -std=gnu11 -O2 -static -Wall -Wextra -Werror -o floor floor.c cgroups.c links.c
 */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS_MAX = 1000, WARM_UP = 3 };

/* The phases of one container, in order. */
enum phase { OVERLAY, CGROUP_MAKE, CLONE, CGROUP_ENTER, SETUP, RUN, NETNS_DROP, CGROUP_REMOVE, UNMOUNT, PHASES };
static const char *const phase_names[PHASES] = {
	"overlay", "cgroup-make", "clone", "cgroup-enter", "setup", "exec-run-reap", "netns-drop", "cgroup-remove", "unmount",
};

static char scratch[PATH_LEN];
static char rootfs[PATH_LEN];
static char **program;
static const char *only; /* the one case to measure, or NULL */
static char *own_program[] = { "/bin/true", NULL };
static double samples[PHASES + 1][ROUNDS_MAX]; /* the last is the whole */

void die(const char *format, ...)
{
	int err = errno;
	va_list a;
	va_start(a, format);
	fputs("floor: ", stderr);
	vfprintf(stderr, format, a);
	fprintf(stderr, ": %s\n", strerror(err));
	va_end(a);
	remove_parents();
	exit(1);
}

void format_to(char *out, size_t size, const char *format, ...)
{
	va_list a;
	va_start(a, format);
	int n = vsnprintf(out, size, format, a);
	va_end(a);
	errno = ENAMETOOLONG;
	if (n < 0 || (size_t)n >= size)
		die("%s", format);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void report(const char *name, const char *phase, double *v, int n)
{
	qsort(v, n, sizeof *v, ascending);
	printf("{\"case\":\"%s%s%s\",\"n\":%d,\"min\":%.1f,\"median\":%.1f,\"p95\":%.1f}\n", name, *phase ? "/" : "", phase, n,
	       v[0], v[n / 2], v[n * 95 / 100]);
	fflush(stdout);
}

struct container {
	int cgroups; /* 1: v1, 2: v2 */
	int netns;   /* prepared one, or -1 */
	int round;
	char mounted[PATH_LEN];
};

static void mount_overlay(struct container *c)
{
	char upper[PATH_LEN], work[PATH_LEN], options[PATH_LEN * 4];
	format_to(upper, sizeof upper, "%s/u%d", scratch, c->round);
	format_to(work, sizeof work, "%s/w%d", scratch, c->round);
	format_to(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, work);
	if (mount("overlay", c->mounted, "overlay", 0, options))
		die("mount overlay");
}

/* The directories are made before: an engine makes them when the container is created. */
static void make_directories(struct container *c)
{
	char path[PATH_LEN];
	for (const char *k = "uw"; *k; k++) {
		format_to(path, sizeof path, "%s/%c%d", scratch, *k, c->round);
		if (mkdir(path, 0755))
			die("mkdir %s", path);
	}
	format_to(c->mounted, sizeof c->mounted, "%s/m%d", scratch, c->round);
	if (mkdir(c->mounted, 0755))
		die("mkdir %s", c->mounted);
}

static void mount_or_die(const char *type, const char *target, unsigned long flags, const char *data)
{
	if (mount(type, target, type, flags, data))
		die("mount %s", target);
}

static void make_dev(void)
{
	static const struct {
		const char *path;
		int major, minor;
	} nodes[] = { { "dev/null", 1, 3 },   { "dev/zero", 1, 5 },    { "dev/full", 1, 7 },
		      { "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 } };
	mount_or_die("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
		if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
			die("mknod %s", nodes[i].path);
	if (mkdir("dev/pts", 0755) || mkdir("dev/shm", 0755) || mkdir("dev/mqueue", 0755) ||
	    symlink("/proc/self/fd", "dev/fd") || symlink("pts/ptmx", "dev/ptmx"))
		die("fill /dev");
	mount_or_die("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
	mount_or_die("tmpfs", "dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	mount_or_die("mqueue", "dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
}

/* inside is the container's first process; ready gets the time just before exec. */
__attribute__((noreturn)) static void inside(struct container *c, int go, int ready)
{
	char byte;
	if (read(go, &byte, 1) != 0)
		die("wait for the cgroups");
	if (c->cgroups == 1 && unshare(CLONE_NEWCGROUP))
		die("unshare the cgroup namespace");
	if (c->netns >= 0 ? setns(c->netns, CLONE_NEWNET) : link_up("lo"))
		die("network namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) || chdir(c->mounted))
		die("enter the root filesystem");
	mount_or_die("proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	mount_or_die("sysfs", "sys", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL);
	make_dev();
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/") || sethostname("floor", 5))
		die("pivot");
	double t = now();
	if (write(ready, &t, sizeof t) != sizeof t)
		die("report");
	char *environment[] = { "PATH=/bin", NULL };
	execve(program[0], program, environment);
	die("execute %s", program[0]);
}

static pid_t start(struct container *c, int go[2], int ready[2])
{
	struct clone_args a = { .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS, .exit_signal = SIGCHLD };
	int dir = -1;
	if (c->netns < 0)
		a.flags |= CLONE_NEWNET;
	if (c->cgroups == 2) {
		dir = open_v2(c->round);
		a.flags |= CLONE_INTO_CGROUP | CLONE_NEWCGROUP;
		a.cgroup = dir;
	}
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid < 0)
		die("clone3");
	if (pid == 0) {
		close(go[1]);
		inside(c, go[0], ready[1]);
	}
	if (dir >= 0)
		close(dir);
	return pid;
}

/* once runs one container and writes the end of each phase to t[1]…t[PHASES]. */
static void once(struct container *c, double *t)
{
	int go[2], ready[2], status;
	make_directories(c);
	t[0] = now();
	mount_overlay(c);
	t[1 + OVERLAY] = now();
	make_cgroups(c->cgroups, c->round);
	t[1 + CGROUP_MAKE] = now();
	if (pipe2(go, O_CLOEXEC) || pipe2(ready, O_CLOEXEC))
		die("pipe");
	pid_t pid = start(c, go, ready);
	t[1 + CLONE] = now();
	if (c->cgroups == 1)
		enter_v1(c->round, pid);
	t[1 + CGROUP_ENTER] = now();
	close(go[0]);
	close(go[1]);
	close(ready[1]);
	ssize_t n = read(ready[0], &t[1 + SETUP], sizeof *t);
	if (waitpid(pid, &status, 0) != pid || status || n != sizeof *t)
		die("the container ended with status %#x", status);
	t[1 + RUN] = now();
	close(ready[0]);
	if (c->netns >= 0)
		close(c->netns);
	t[1 + NETNS_DROP] = now();
	remove_cgroups(c->cgroups, c->round);
	t[1 + CGROUP_REMOVE] = now();
	if (umount2(c->mounted, MNT_DETACH))
		die("unmount");
	t[1 + UNMOUNT] = now();
}

static void measure(const char *name, int prepared, int cgroups, int rounds)
{
	static int next; /* names of rounds are used once: a closed namespace keeps its link's for a while */
	static int made[ROUNDS_MAX + WARM_UP];
	if (only && strcmp(only, name))
		return;
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		die("open the network namespace");
	int first = next;
	if (prepared)
		for (int i = 0; i < rounds + WARM_UP; i++)
			made[i] = prepare(first + i, home);
	for (int i = 0; i < rounds + WARM_UP; i++) {
		double t[PHASES + 1];
		struct container c = { .cgroups = cgroups, .netns = prepared ? made[i] : -1, .round = next++ };
		once(&c, t);
		if (i < WARM_UP)
			continue;
		for (int p = 0; p < PHASES; p++)
			samples[p][i - WARM_UP] = t[p + 1] - t[p];
		samples[PHASES][i - WARM_UP] = t[PHASES] - t[0];
	}
	close(home);
	report(name, "", samples[PHASES], rounds);
	for (int p = 0; p < PHASES; p++)
		report(name, phase_names[p], samples[p], rounds);
}

/* The least that any run of a program costs: fork, exec, exit, wait. */
static void measure_exec(int rounds)
{
	char path[PATH_LEN];
	if (only && strcmp(only, "exec"))
		return;
	format_to(path, sizeof path, "%s%s", rootfs, program[0]);
	for (int i = -WARM_UP; i < rounds; i++) {
		int status;
		double t = now();
		pid_t pid = vfork();
		if (pid == 0) {
			execv(path, program);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			die("run %s", path);
		if (i >= 0)
			samples[0][i] = now() - t;
	}
	report("exec", "", samples[0], rounds);
}

/* own_rootfs makes a root filesystem that holds this program as /bin/true. */
static void own_rootfs(void)
{
	char path[PATH_LEN];
	static char buffer[65536];
	format_to(rootfs, sizeof rootfs, "%s/rootfs", scratch);
	static const char *const dirs[] = { "", "/bin", "/proc", "/sys", "/dev" };
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		format_to(path, sizeof path, "%s%s", rootfs, dirs[i]);
		if (mkdir(path, 0755))
			die("mkdir %s", path);
	}
	format_to(path, sizeof path, "%s/bin/true", rootfs);
	int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	ssize_t n = -1;
	while (in >= 0 && out >= 0 && (n = read(in, buffer, sizeof buffer)) > 0)
		if (write(out, buffer, n) != n)
			die("copy the program");
	if (n)
		die("copy the program");
	close(in);
	close(out);
	program = own_program;
}

int main(int argc, char **argv)
{
	int rounds = 100, option;
	if (argc > 0 && !strcmp(argv[0], own_program[0]))
		return 0;
	while ((option = getopt(argc, argv, "+n:c:")) != -1) {
		if (option == 'c')
			only = optarg;
		if (option == 'n')
			rounds = atoi(optarg);
		if (option == '?' || rounds < 1 || rounds > ROUNDS_MAX) {
			optind = argc; /* usage */
			break;
		}
	}
	int rest = argc - optind;
	if (rest != 1 && rest < 3) {
		fprintf(stderr, "usage: floor [-n ROUNDS (1-%d)] [-c CASE] SCRATCH [ROOTFS PROGRAM [ARGUMENT ...]]\n", ROUNDS_MAX);
		return 2;
	}
	char *full = realpath(argv[optind], NULL);
	if (!full || strlen(full) >= sizeof scratch - 16)
		die("%s", argv[optind]);
	format_to(scratch, sizeof scratch, "%s", full);
	free(full);
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("make namespaces to work in");
	mount_or_die("tmpfs", scratch, 0, "mode=755");
	if (rest == 1) {
		own_rootfs();
	} else {
		format_to(rootfs, sizeof rootfs, "%s", argv[optind + 1]);
		program = argv + optind + 2;
	}
	make_bridge();
	find_cgroups();
	measure_exec(rounds);
	if (have_cgroups(1)) {
		measure("none/v1", 0, 1, rounds);
		measure("prepared/v1", 1, 1, rounds);
	}
	if (have_cgroups(2)) {
		measure("none/v2", 0, 2, rounds);
		measure("prepared/v2", 1, 2, rounds);
	}
	remove_parents();
	return 0;
}
