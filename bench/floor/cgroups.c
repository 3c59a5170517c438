/* Cgroups: one parent for each hierarchy, one child for each round. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *const v1_names[] = { "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids" };
enum { V1 = sizeof v1_names / sizeof *v1_names };

static char parents[V1 + 1][PATH_LEN]; /* the last is v2; empty where missing */
static pid_t owner;                    /* of the parents: not a container that failed */

static void write_file(const char *path, const char *text)
{
	int f = open(path, O_WRONLY | O_CLOEXEC);
	if (f < 0 || write(f, text, strlen(text)) < 0)
		die("write %s", path);
	close(f);
}

/* A v1 cpuset takes nobody in before it has processors and memory. */
static void fill_cpuset(const char *dir)
{
	static const char *const names[] = { "cpuset.cpus", "cpuset.mems" };
	for (int i = 0; i < 2; i++) {
		char path[PATH_LEN], value[256] = "";
		format_to(path, sizeof path, "%s/../%s", dir, names[i]);
		int f = open(path, O_RDONLY | O_CLOEXEC);
		if (f < 0 || read(f, value, sizeof value - 1) < 0)
			die("read %s", path);
		close(f);
		format_to(path, sizeof path, "%s/%s", dir, names[i]);
		write_file(path, value);
	}
}

void find_cgroups(void)
{
	struct statfs fs;
	owner = getpid();
	for (int i = 0; i < V1; i++) {
		char mount[64];
		format_to(mount, sizeof mount, "/sys/fs/cgroup/%s", v1_names[i]);
		if (statfs(mount, &fs) || fs.f_type != CGROUP_SUPER_MAGIC)
			continue;
		format_to(parents[i], PATH_LEN, "%s/gantry-floor-%d", mount, getpid());
	}
	const char *v2[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	for (int i = 0; i < 2; i++)
		if (!statfs(v2[i], &fs) && fs.f_type == CGROUP2_SUPER_MAGIC)
			format_to(parents[V1], PATH_LEN, "%s/gantry-floor-%d", v2[i], getpid());
	for (int i = 0; i <= V1; i++) {
		if (!*parents[i])
			continue;
		if (mkdir(parents[i], 0755))
			die("mkdir %s", parents[i]);
		if (i < V1 && !strcmp(v1_names[i], "cpuset"))
			fill_cpuset(parents[i]);
	}
}

static void cgroup_path(char *path, int i, int round)
{
	format_to(path, PATH_LEN, "%s/%d", parents[i], round);
}

void make_cgroups(int which, int round)
{
	char path[PATH_LEN];
	for (int i = which == 1 ? 0 : V1; i < (which == 1 ? V1 : V1 + 1); i++) {
		if (!*parents[i])
			continue;
		cgroup_path(path, i, round);
		if (mkdir(path, 0755))
			die("mkdir %s", path);
		if (i < V1 && !strcmp(v1_names[i], "cpuset"))
			fill_cpuset(path);
	}
}

void enter_v1(int round, pid_t pid)
{
	char path[PATH_LEN], file[PATH_LEN], text[16];
	format_to(text, sizeof text, "%d", pid);
	for (int i = 0; i < V1; i++) {
		if (!*parents[i])
			continue;
		cgroup_path(path, i, round);
		format_to(file, sizeof file, "%s/cgroup.procs", path);
		write_file(file, text);
	}
}

void remove_cgroups(int which, int round)
{
	char path[PATH_LEN];
	for (int i = which == 1 ? 0 : V1; i < (which == 1 ? V1 : V1 + 1); i++) {
		if (!*parents[i])
			continue;
		cgroup_path(path, i, round);
		for (int tries = 0; rmdir(path); tries++) {
			if (errno != EBUSY || tries == 20000)
				die("rmdir %s", path);
			usleep(50);
		}
	}
}

void remove_parents(void)
{
	if (getpid() != owner)
		return;
	for (int i = 0; i <= V1; i++)
		if (*parents[i])
			rmdir(parents[i]);
}

int have_cgroups(int which)
{
	for (int i = which == 1 ? 0 : V1; i < (which == 1 ? V1 : V1 + 1); i++)
		if (*parents[i])
			return 1;
	return 0;
}

int open_v2(int round)
{
	char path[PATH_LEN];
	cgroup_path(path, V1, round);
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		die("open %s", path);
	return dir;
}
