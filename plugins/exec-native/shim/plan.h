/*
 * plan.h - the plan's format, as package plan writes it (plan/doc.go).
 *
 * A test compares every number here with the Go side's.
 */
#ifndef GANTRY_PLAN_H
#define GANTRY_PLAN_H

#include <stddef.h>
#include <stdint.h>

enum {
	PLAN_MAGIC = 0x4e4c5047, /* "GPLN" */
	PLAN_VERSION = 1,
	PLAN_HEADER = 24,
	STEP_HEADER = 8,
};

enum limit {
	MAX_PLAN = 4194304,
	MAX_STEPS = 2048,
	MAX_FILES = 512,
	MAX_STRING = 131072,
	MAX_PATH = 4095,
	MAX_ARGS = 16384,
	MAX_TRIES = 64,
	MAX_PARAMS = 64,
	MAX_ATTRS = 4,
	MAX_GROUPS = 1024,
	MAX_FILTER = 32768,
	MAX_DATA = 65536,
	MAX_NAME = 64,
	MAX_LOG_NAME = 200,
	MAX_KEEP = 256,
	MAX_MASK = 1024,
	MAX_RING = 255,
	PID_ROOM = 10,
	MIN_BUFFER = 65536,
	MAX_BUFFER = 67108864,
};

#define NO_FD 0xffffffffu

enum stage {
	STAGE_MONITOR = 0,
	STAGE_JOIN = 1,
	STAGE_CLONE = 2,
	STAGE_PARENT = 3,
	STAGE_CHILD = 4,
	STAGE_MOUNTS = 5,
	STAGE_COVER = 6,
	STAGE_GATE = 7,
	STAGE_IDENTITY = 8,
	STAGE_EXEC = 9,
};

enum kind {
	OP_MONITOR = 1,
	OP_SHIM_CGROUP = 2,
	OP_LOCK = 3,
	OP_RECORD = 4,
	OP_LISTEN = 5,
	OP_LOG = 6,
	OP_OOM_COUNTER = 7,
	OP_LEAVE = 8,
	OP_DEADLINE = 9,
	OP_LOG_POLICY = 10,
	OP_OWNER = 11,
	OP_JOIN = 16,
	OP_UNSHARE = 17,
	OP_CLONE = 24,
	OP_PROC_WRITE = 32,
	OP_CGROUP = 33,
	OP_RLIMIT = 34,
	OP_AFFINITY = 35,
	OP_SCHEDULER = 36,
	OP_IO_PRIORITY = 37,
	OP_MEMORY_POLICY = 38,
	OP_KEYRING = 39,
	OP_PROPAGATION = 40,
	OP_ROOT = 41,
	OP_ATTACH = 42,
	OP_FILESYSTEM = 43,
	OP_NODE = 44,
	OP_SYMLINK = 45,
	OP_SET_ATTR = 48,
	OP_PIVOT = 49,
	OP_HOSTNAME = 50,
	OP_DOMAINNAME = 51,
	OP_SYSCTL = 52,
	OP_MASK = 53,
	OP_READ_ONLY = 54,
	OP_LINK_UP = 55,
	OP_CONSOLE = 56,
	OP_MOVE_ROOT = 57,
	OP_PTY = 58,
	OP_ROOT_HERE = 59,
	OP_CHROOT = 60,
	OP_BIND = 61,
	OP_SYNC = 64,
	OP_GATE = 65,
	OP_START_GATE = 66,
	OP_HOOK = 67,
	OP_CAP_BOUND = 72,
	OP_USER = 73,
	OP_CAP_SET = 74,
	OP_NO_NEW_PRIVS = 75,
	OP_SECCOMP = 76,
	OP_UMASK = 77,
	OP_CHDIR = 78,
	OP_PERSONALITY = 79,
	OP_LABEL = 80,
	OP_SWEEP = 88,
	OP_EXEC = 89,
};

enum monitor_flag { WAIT_ATTACH = 1, OPEN_STDIN = 2, TERMINAL = 4, STDIN_ONCE = 8, QUIET = 16 };
enum create { CREATE_NONE = 0, CREATE_DIR = 1, CREATE_FILE = 2 };
enum param { PARAM_FLAG = 0, PARAM_STRING = 1, PARAM_FD = 2 };

/* A string inside the plan; a NUL stands at s[n]. */
struct str {
	const char *s;
	uint32_t n;
};

/* A piece of the plan that is read on when it is used; checked like the rest. */
struct blob {
	const uint8_t *p;
	uint32_t n;     /* bytes */
	uint32_t count; /* elements, for lists */
};

struct attr {
	uint64_t set, clear, propagation;
	uint32_t recursive;
};

struct node {
	uint32_t mode, major, minor, uid, gid;
	struct str path;
};

struct monitor_settings {
	uint32_t flags, gate_ms, drain_ms, uid;
	uint64_t run;
	const uint8_t *boot_id;
};

/* One operation. fd is an index among the plan's files, or NO_FD. */
struct op {
	uint16_t kind;
	uint8_t stage, optional;
	uint32_t index;
	uint32_t fd;
	union {
		struct monitor_settings monitor;
		uint32_t dir;  /* SHIM_CGROUP */
		struct {
			uint32_t std[3];
			struct blob keep;
		} leave;
		struct {
			uint32_t non_blocking, buffer, max_age;
		} policy;
		struct {
			uint32_t uid, gid;
		} owner;
		struct {
			uint32_t files;
			uint64_t bytes, offset;
			struct str name;
		} log;
		uint64_t flags; /* JOIN, UNSHARE, CLONE, PROPAGATION */
		struct {
			uint32_t resource;
			uint64_t soft, hard;
		} rlimit;
		struct {
			uint32_t create;
			struct attr attr;
			struct str target;
		} attach; /* also ROOT, SET_ATTR */
		struct {
			struct str type, target;
			uint32_t create;
			uint64_t attrs;
			struct blob params;
		} fs;
		struct {
			uint32_t create, recursive, major, minor;
			uint64_t inode;
			struct blob attrs;
			struct str source, target;
		} bind;
		struct node node;
		struct {
			struct str a, b;
		} two; /* PROC_WRITE, SYMLINK, SYSCTL, LABEL; a alone: names, MASK, READ_ONLY */
		struct {
			uint16_t rows, cols;
		} console; /* also PTY */
		uint32_t number; /* SYNC, UMASK, PERSONALITY, DEADLINE, IO_PRIORITY */
		struct {
			uint32_t mode;
			struct blob set;
		} mask; /* AFFINITY, MEMORY_POLICY */
		struct {
			uint32_t policy, priority;
			int32_t nice;
			uint64_t flags, runtime, deadline, period;
		} sched;
		struct {
			uint32_t timeout_ms, pid_at;
			struct str path;
			struct blob args, env, state;
		} hook;
		struct {
			uint32_t uid, gid, keep_caps;
			struct blob groups;
		} user;
		struct {
			uint64_t effective, permitted, inheritable, ambient;
		} caps; /* CAP_BOUND: effective is what is kept */
		struct {
			uint32_t flags;
			struct blob filter;
		} seccomp;
		struct {
			uint32_t create, uid, gid;
			struct str path;
		} chdir;
		struct {
			struct blob paths, args, env;
		} exec;
	};
};

struct plan {
	const uint8_t *p;
	uint32_t len, steps, files;
};

/* A walk over the steps: at is the next one's place. */
struct walk {
	const struct plan *plan;
	uint32_t at, index;
};

/* What a refused plan was refused for. */
struct refusal {
	uint32_t index;
	uint16_t kind;
	uint8_t stage;
	int err;
};

/* plan_open reads the header; 0 or a negative errno. */
int plan_open(struct plan *plan, const uint8_t *p, size_t len, uint32_t files);

/* plan_check looks at everything; what it lets pass, plan_next decodes. */
int plan_check(const struct plan *plan, struct refusal *why);

/* plan_next decodes the next step: 1, 0 at the end, or a negative errno. */
int plan_next(struct walk *w, struct op *op);

/* Readers of lists in a checked plan. */
struct str blob_str(struct blob *b);
uint32_t blob_u32(struct blob *b);
struct attr blob_attr(struct blob *b);

#endif
