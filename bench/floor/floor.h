/* What the parts of the floor benchmark share; floor.c says what it is. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stddef.h>
#include <sys/types.h>

enum { PATH_LEN = 512 };

/* die says what failed and why, gives the cgroups back, and ends the program. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
/* format_to is snprintf that dies rather than truncate. */
__attribute__((format(printf, 3, 4))) void format_to(char *out, size_t size, const char *format, ...);

/* Cgroups of this run; `which` is 1 for all v1 hierarchies and 2 for v2. */
void find_cgroups(void);
int have_cgroups(int which);
void make_cgroups(int which, int round);
void enter_v1(int round, pid_t pid);
int open_v2(int round);
void remove_cgroups(int which, int round);
void remove_parents(void);

/* Links, by raw netlink messages. */
void make_bridge(void);
int link_up(const char *name);
/* prepare makes a network namespace with a veth on the bridge, as an engine
 * does ahead, and returns a descriptor of it; home is where the caller is. */
int prepare(int round, int home);

#endif
