/*
 * shim.h - what the shim's files share.
 *
 * One program, four processes (plan/doc.go): helper, monitor, joiner, init; in
 * the leaving mode the helper is the joiner, and there is no monitor.
 * Stages, each reported by number with the operation and its errno:
 *
 *	0 monitor   1 join   2 clone   3 parent   4 child   5 mounts
 *	6 cover     7 gate   8 identity           9 exec
 */
#ifndef GANTRY_SHIM_H
#define GANTRY_SHIM_H

#include "plan.h"
#include "sys.h"

enum { CONTROL_FD = 3 };

/* Messages to the shim on the control socket (plan/launch.go). */
enum {
	SEND_MAGIC = 0x4d485347, /* "GSHM" */
	SEND_FILES = 1,
	SEND_PLAN = 2,
	SEND_GO = 3,
	SEND_ABORT = 4,
	SEND_EARLY = 5,
	SEND_STANDBY = 6,
	SEND_HEADER = 16,
	MAX_PIECE = 32768,
	MAX_PASSED = 253,
};

/* Reports to the driver (plan/report.go); those from 100 on are the init's own
 * words to the monitor, on a socket pair of theirs. */
enum report_kind {
	REPORT_SHIM = 1,
	REPORT_INIT = 2,
	REPORT_SYNC = 3,
	REPORT_GATE = 4,
	REPORT_RUNNING = 5,
	REPORT_WARNING = 6,
	REPORT_ERROR = 7,
	REPORT_EXITED = 8,
	REPORT_LISTENER = 9,  /* code: the descriptor that the listener will have */
	REPORT_FINAL = 100,   /* from here on the socket's end means: executed */
	REPORT_CONSOLE = 101, /* a pty's master comes along */
};

enum { REPORT_MAGIC = 0x54505247, RECORD_MAGIC = 0x43455247, RECORD_SIZE = 88 };
enum { FLAG_OOM = 1, FLAG_FAILED = 2, FLAG_TIMEOUT = 4 };

enum run_state {
	STATE_MADE = 1,
	STATE_RUNNING = 2,
	STATE_EXITED = 3,
	STATE_FAILED = 4,
};

struct report {
	uint32_t magic;
	uint16_t kind, stage;
	uint32_t index; /* of an exit: low half of the output's end, should the log not reach it */
	uint16_t op, flags;
	int32_t err;    /* of an exit: the high half */
	int32_t pid; /* or the point of a sync */
	int32_t code, signal;
	uint64_t time;
};
_Static_assert(sizeof(struct report) == 40, "report");

struct record {
	uint32_t magic;
	uint16_t version, state;
	uint64_t run;
	uint8_t boot_id[16];
	int32_t shim_pid, pid, code, signal;
	uint64_t started, ended;
	uint16_t stage, op;
	uint32_t index; /* as in a report */
	int32_t err;
	uint32_t flags, zero, crc;
};
_Static_assert(sizeof(struct record) == RECORD_SIZE, "record");

/* rt.c */
uint32_t crc32(const void *p, size_t n);
size_t put_number(char *to, uint64_t v);

/* What a message begins with. */
struct message {
	uint32_t magic;
	uint16_t kind, zero;
	uint32_t a, b;
};
_Static_assert(sizeof(struct message) == SEND_HEADER, "message");

/* Bits of an early message's b. */
enum early_flag { EARLY_LEAVE = 1, EARLY_SHIM_CGROUP = 2, EARLY_CGROUP = 4 };

/* An init that was made before the plan was there (early.c), and the monitor. */
struct early {
	int standby;    /* this process is the monitor already, in its cgroups */
	int home;       /* ... of version 2 as well */
	uint32_t flags; /* of its clone */
	uint32_t what;  /* EARLY_... */
	int cgroups[2]; /* of the shims and of the container; -1 */
	int pid;        /* 0: there is none */
	int sync;       /* to it */
	size_t mapped;  /* bytes of the memory shared with it; 0: never was one */
};

/* main.c */
int shim_main(void);
int take_message(int fd, struct message *head, void *data, size_t room, long *n, int *fds);

/* early.c */
int early_standby(struct early *e, int home, const int *fds, int n);
int early_start(struct early *e, void *plan);
int early_fits(const struct early *e, const struct op *clone);
int early_hand_over(const struct early *e, const struct plan *plan, const int *files,
		    const int *std);
void early_drop(struct early *e);

/* report.c: never blocks; -errno when nobody is there. */
int report_send(int fd, struct report *r, int pass);
int report_receive(int fd, struct report *r, int *passed, int flags);

/* The init, and the joiner before it. Descriptors are -1 when there is none. */
struct init {
	const struct plan *plan;
	const int *files;
	int sync;      /* to the monitor */
	int std[3];    /* its ends of the pipes; -1 for /dev/null */
	int console;   /* slave of the pty */
	int root;      /* the container's root; init_root opens it */
	int proc;      /* a procfs of its pid namespace, made here */
	int proc_shown; /* it is the container's own /proc, on which others may lie */
	int mask_dir;  /* an attached empty tmpfs, to be cloned */
	int parent;    /* directory of the last path, path_parent's own */
	size_t parent_len;
	const char *parent_path;
	int umask_set;
	int closing; /* all descriptors are marked to be closed by the exec */
	int must_wait; /* for the monitor, before stage 4 */
	int leaving;   /* sync leads to the driver itself, later to who opened the gate */
	int held;      /* leaving: a pipe that the helper writes once stage 3 is done; or -1 */
	int labels;    /* a procfs will be needed once /proc is covered */
	int status;    /* of the hook that failed */
	struct blob keep; /* descriptors that the program gets beside its streams */
};

/* What a plan holds that decides how it is started; clone is its Clone. */
struct parts {
	int joins, parents, labels, filters; /* the last: right before the exec */
	struct op clone;
};
void look_through(const struct plan *plan, struct parts *has);

/* leave.c */
void leave_main(const struct plan *plan, const int *files, struct early *e)
	__attribute__((noreturn));
void leave_settings(struct init *in);
int leave_wait(struct init *in, const struct op *op);
int op_start_gate(struct init *in, const struct op *op);

/* init.c */
void init_main(struct init *in) __attribute__((noreturn));
void init_fail(struct init *in, const struct op *op, int err) __attribute__((noreturn));
void init_wait(struct init *in);
int init_root(struct init *in);
int init_proc(struct init *in);
int init_run(struct init *in, struct op *op);
int clone_init(const struct op *op, const int *files, uint64_t flags);
int parent_write(int proc, int pid, const struct op *op);
int tell_and_wait(struct init *in, const struct op *op, struct report *r);
void kill_on_parents_death(const struct init *in);
void forget_dumps(void);
void close_files_of(const struct init *in, uint8_t first, uint8_t last);
int write_all(int fd, const void *p, size_t n);
int write_proc(int proc, const char *path, const char *data, size_t n);
int write_own_proc(struct init *in, const char *path, const char *data, size_t n);

/* path.c: descriptors (O_PATH) or negative errno. path_forget comes before a
 * mount on what path_open found: the kept directory might lie below it. */
int path_open(int root, const char *path, uint64_t flags);
int path_make(struct init *in, const char *path, uint32_t create);
int path_parent(struct init *in, const char *path, const char **name);
void path_forget(struct init *in);

/* Of the builds of test/escape: where others would lose a race, the loser waits
 * until somebody opens and closes the FIFO PATH.pause. */
#ifdef TEST_PAUSES
void test_pause(int root, const char *path);
#else
static inline void test_pause(int root, const char *path) { (void)root, (void)path; }
#endif
#if defined(WEAKEN_IN_ROOT) || defined(WEAKEN_TARGET)
int open_anywhere(int root, const char *path, uint64_t flags);
#endif

/* hook.c */
int op_hook(struct init *in, const struct op *op);

/* ops_*.c, exec.c: 0 or a negative errno. */
int op_mount(struct init *in, const struct op *op);
int op_file(struct init *in, const struct op *op);
int op_cover(struct init *in, const struct op *op);
int op_identity(struct init *in, const struct op *op);
int op_setting(struct init *in, const struct op *op);
int op_chdir(struct init *in, const struct op *op);
int op_sweep(struct init *in);
int op_exec(struct init *in, const struct op *op);
const char **words_of(struct blob args, struct blob env, const char ***envp);
int is_null(int fd);
int set_attr(int fd, const struct attr *a);
int attach_mount(int fd, int target);
int make_fs(const char *type, struct blob *params, const int *files, uint64_t attrs);

/* monitor.c */
void monitor_main(const struct plan *plan, const int *files, struct early *e)
	__attribute__((noreturn));
void ignore_signals(int ignore);

#endif
