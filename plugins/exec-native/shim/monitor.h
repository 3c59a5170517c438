/*
 * monitor.h - the state of the process that stays. All of it is static: the
 * monitor allocates nothing while the program runs.
 */
#ifndef GANTRY_MONITOR_H
#define GANTRY_MONITOR_H

#include "shim.h"

/* Frames of the attach socket (internal/stdio/frame.go). */
enum frame {
	FRAME_HELLO = 1,
	FRAME_STDIN = 2,
	FRAME_STDIN_EOF = 3,
	FRAME_RESIZE = 4,
	FRAME_DETACH = 5,
	FRAME_STDOUT = 16,
	FRAME_STDERR = 17,
	FRAME_LOST = 18,
	FRAME_EXIT = 19,
	FRAME_STATE = 20,
};

enum hello_flag {
	HELLO_STDOUT = 1,
	HELLO_STDERR = 2,
	HELLO_STDIN = 4,
	HELLO_STDIN_ONCE = 8, /* the client's end is the end of standard input */
	HELLO_LOSSLESS = 16,
	HELLO_CONTROL = 32, /* only state and exit; opens no gate */
};

enum {
	FRAME_HEADER = 4,
	MAX_FRAME = 65536,   /* bytes of a frame's payload in either direction */
	MAX_CLIENTS = 16,
	HELLO_SIZE = 4,      /* u8 version, u8 zero, u16 flags */
	RESIZE_SIZE = 4,     /* u16 rows, u16 columns */
	LOST_SIZE = 24,
	EXIT_SIZE = 40,
	STATE_SIZE = 24,
	PROTOCOL = 1,
	HELLO_MS = 10000,    /* a connection that says nothing so long is closed */
	FOLLOWER_MS = 5000,  /* a follower has so long to take the end */
	LATER_MS = 100,      /* until what could not be taken is tried again */
	STDIN_BUFFER = 32768,
};

/* A log record's header (internal/stdio/record.go). */
enum { LOG_MAGIC = 0x31524c47, LOG_HEADER = 32 }; /* "GLR1" */
enum log_stream { LOG_STDOUT = 1, LOG_STDERR = 2, LOG_GAP = 3 };

/* One of the program's outputs, with the last piece read from it. The piece
 * stays until every lossless client has taken it. */
struct stream {
	int fd;         /* -1 once at its end */
	uint8_t index;  /* 0 output, 1 error */
	uint32_t len;   /* of the piece; 0 for none */
	uint64_t offset; /* of its first byte in the log */
	uint8_t *tail;  /* what was still in the pipe when the run was closed */
	uint32_t tail_len, tail_at;
	uint64_t tail_offset;
	uint8_t piece[FRAME_HEADER + MAX_FRAME]; /* framed */
};

enum sending { SEND_NOTHING, SEND_SMALL, SEND_SPILL, SEND_PIECE0, SEND_PIECE1 };

struct client {
	int fd; /* -1: free */
	uint16_t flags;
	uint8_t greeted, blocked, closing;
	uint8_t input_ended; /* it says no more, but may listen */
	uint8_t hung;        /* it is gone; what it said is still read */
	int64_t since; /* when it connected, ms of the monotonic clock */
	uint64_t first; /* offset in the log of what it is sent first, as its state told it */

	/* The frame being received. */
	uint8_t head[FRAME_HEADER], body[8];
	uint8_t head_have;
	uint32_t left; /* of the payload */

	/* What it is to be sent, and how far that is. */
	uint8_t sending, state_due, exit_due, piece_due[2];
	uint32_t at, small_len;
	uint8_t small[FRAME_HEADER + EXIT_SIZE];
	uint64_t lost_from[2], lost_to[2]; /* equal: nothing lost */
	uint32_t spill_len;
};

struct log {
	int dir, fd;
	char name[MAX_LOG_NAME + 8]; /* room for ".99" and ".new" */
	uint32_t name_len, max_files;
	uint64_t max_bytes, size; /* of the current file */
	uint64_t max_age;         /* ns after which a file is rotated; 0 for never */
	uint64_t born;            /* when the current file got its first record */
	struct ring *ring;        /* of non-blocking delivery; NULL for blocking */
	uint64_t first, offset;   /* of this run's first byte, and of the next one */
	uint64_t dropped;         /* bytes not yet confessed in a gap record */
	uint64_t dropped_at;      /* offset of the first of them */
};

enum phase {
	PHASE_SETUP,   /* the init runs its plan */
	PHASE_SYNC,    /* ... waits for the driver */
	PHASE_GATE,    /* ... waits for a client */
	PHASE_RUNNING,
	PHASE_DRAIN,   /* the program has ended, its output not yet */
	PHASE_CLOSED,  /* all is recorded; clients may still be taking output */
};

struct monitor {
	struct monitor_settings set;
	uint8_t boot_id[16];
	int control, sync, listen, lock, record, oom, pidfd;
	int stdin_fd;  /* write end, or the pty's master */
	int terminal;  /* master, or -1 */
	int slave;     /* keeps the terminal while the program lives */
	int home;      /* its cgroups were entered before there was a plan */
	int pid;
	enum phase phase;
	int owned; /* the pipes go to owner: uid and gid */
	uint32_t owner[2];
	uint32_t limit_ms; /* how long the program may run; 0 for ever */
	int hook_status; /* of a hook that failed */
	int final;     /* the init said that it is about to execute */
	int filtered;  /* a filter comes after that, which may stop it */
	uint64_t oom_before;
	int64_t deadline; /* of gate, drain or lingering; ms, 0 for none */
	int64_t later;    /* when what is there but could not be taken is tried again; as above */
	struct record rec;
	struct log log;
	struct stream out[2];
	struct client clients[MAX_CLIENTS];
	uint32_t in_len, in_at; /* standard input not yet written */
	int in_eof;             /* ... and then closed */
	uint8_t in[STDIN_BUFFER];
};

extern struct monitor M;

/* monitor.c */
int64_t now_ms(void);
void try_later(void);
void enter_phase(enum phase phase);
void report_to_driver(struct report *r);
void driver_says(void);

/* launch.c: makes the init; monitor_fail when that fails. */
void launch(const struct plan *plan, const int *files, struct early *e);
int setup(const struct plan *plan, const int *files, struct op *op);

/* ending.c */
int reap(int flags);
void monitor_fail(uint16_t stage, uint16_t kind, uint32_t index, int err);
void program_ended(void);
void time_is_up(void);
void close_run(void);
uint64_t oom_count(void);
void write_record(uint16_t state);

/* stream.c */
void stream_read(struct stream *s);
void stream_finish(struct stream *s);
int stream_held(const struct stream *s);
int stdin_full(void);
void stdin_write(void);
void stdin_close(void);

/* client.c */
void client_accept(void);
void client_input(struct client *c);
void client_close(struct client *c);
void client_hung(struct client *c);
int client_attached(void);
int64_t close_silent(void);

/* deliver.c */
void deliver(struct client *c);
void deliver_all(void);
void forget_spill(struct client *c);
void pass_over(struct client *c, struct stream *s);

/* confine.c */
void confine(void);

/* log.c */
int log_open(const struct op *op, const int *files);
void log_record(const void *p, uint32_t n, uint32_t stream, uint64_t offset, uint64_t time);
void log_flush(void);
int log_end(void);
void log_drop(uint64_t offset, uint64_t n);
void log_write(const void *p, uint32_t n, uint32_t stream);

/* ring.c */
int log_policy(const struct op *op);
void ring_put(const void *p, uint32_t n, uint32_t stream, uint64_t offset);
uint64_t ring_end(void);
void ring_forget(void);

#endif
