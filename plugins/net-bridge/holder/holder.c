/*
 * gantry-netns keeps network namespaces alive, so that they outlive the driver.
 *
 * A namespace lives as long as something refers to it. A bind mount would do,
 * but every mount in the host's table makes each later clone of a mount
 * namespace slower. So this process holds descriptors, one for each key, and a
 * namespace is found at /proc/<pid>/fd/<n>; dropping the descriptor is the
 * cheapest way to end it (some microseconds, where RTM_DELLINK takes 30 ms).
 *
 *   gantry-netns SECONDS      started by the net-bridge driver, with
 *     fd 3   a listening SOCK_SEQPACKET unix socket (mode 0600, directory 0700)
 *     fd 4   the lock file: locked for as long as this process lives
 *
 * One engine has one holder. It parses nothing but the fixed header below,
 * allocates nothing at run time, and serves one request at a time. Every SECONDS
 * without one it looks whether its lock file was deleted: then nobody can find
 * it any more, and it leaves.
 *
 * Build: cc -std=gnu11 -Os -static -Wall -Wextra -Werror -o gantry-netns holder.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	VERSION = 1,
	LISTEN_FD = 3,
	LOCK_FD = 4,
	KEYS_MAX = 4096,   /* endpoints of one engine */
	KEY_MAX = 288,     /* bytes of a key */
	CLIENTS_MAX = 8,
	CHILD_MS = 5000,
	LIST_BYTES = 65536
};

enum op { OP_HELLO = 1, OP_MAKE, OP_PUT, OP_GET, OP_LIST, OP_DROP, OP_QUIT };

/* A request is this header and key_len bytes of key, with at most one descriptor. */
struct request {
	uint8_t version;
	uint8_t op;
	uint16_t key_len;
	uint32_t arg;
};

/* A reply is this header, of OP_LIST followed by entries, with at most one descriptor. */
struct reply {
	int32_t err; /* errno, or 0 */
	uint32_t n;  /* HELLO: pid; PUT, GET: descriptor number; LIST: next index, 0 at the end; DROP: others with this namespace */
	uint64_t ino;
};

struct listed {
	uint64_t ino;
	uint32_t n;
	uint32_t key_len;
};

struct entry {
	uint64_t hash;
	uint64_t ino;
	int fd;
	uint32_t key_len;
	char key[KEY_MAX];
};

static struct entry entries[KEYS_MAX]; /* compact: the first `used` are in use */
static uint32_t used;
static int look_ms; /* how often to look for the lock file */
static int home_ns;
static struct pollfd polls[1 + CLIENTS_MAX];
static int clients;
static char out[LIST_BYTES];

static uint64_t hash_of(const char *key, uint32_t len)
{
	uint64_t h = 14695981039346656037ULL; /* FNV-1a */
	for (uint32_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)key[i]) * 1099511628211ULL;
	return h;
}

static struct entry *find(const char *key, uint32_t len)
{
	uint64_t h = hash_of(key, len);
	for (uint32_t i = 0; i < used; i++)
		if (entries[i].hash == h && entries[i].key_len == len && !memcmp(entries[i].key, key, len))
			return &entries[i];
	return NULL;
}

/* loopback_up must run in the namespace it is for. */
static int loopback_up(void)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -errno;
	int err = ioctl(s, SIOCSIFFLAGS, &r) ? -errno : 0;
	close(s);
	return err;
}

/* no_ipv6 keeps IPv6 off all links to come, loopback excepted: the networks
 * have none, and a link that listens to router advertisements takes them from
 * any neighbour (CVE-2020-13401). A kernel without IPv6 has no such file. */
static int no_ipv6(void)
{
	int f = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
	if (f < 0)
		return errno == ENOENT ? 0 : -errno;
	int err = write(f, "1", 1) == 1 ? 0 : -errno;
	close(f);
	return err;
}

/* enter_new puts the caller into a new network namespace with loopback up and
 * returns a descriptor of it. */
static int enter_new(void)
{
	if (unshare(CLONE_NEWNET))
		return -errno;
	int err = loopback_up();
	if (!err)
		err = no_ipv6();
	if (err)
		return err;
	int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int make_here(void)
{
	int fd = enter_new();
	if (setns(home_ns, CLONE_NEWNET)) {
		/* Not at home any more: every further namespace would be as good,
		 * but this process would keep one alive that nobody knows. */
		_exit(111);
	}
	return fd;
}

/* send_fd sends a header and, if fd is not negative, a descriptor. */
static int send_fd(int sock, const void *data, size_t len, int fd)
{
	union {
		struct cmsghdr h;
		char b[CMSG_SPACE(sizeof(int))];
	} c;
	struct iovec v = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	if (fd >= 0) {
		memset(&c, 0, sizeof c);
		m.msg_control = &c;
		m.msg_controllen = sizeof c;
		c.h.cmsg_level = SOL_SOCKET;
		c.h.cmsg_type = SCM_RIGHTS;
		c.h.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&c.h), &fd, sizeof fd);
	}
	ssize_t n = sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n == (ssize_t)len ? 0 : -1;
}

/* recv_fd receives one packet and at most one descriptor; *fd is -1 without. */
static ssize_t recv_fd(int sock, void *data, size_t len, int *fd)
{
	union {
		struct cmsghdr h;
		char b[CMSG_SPACE(sizeof(int))];
	} c;
	struct iovec v = { .iov_base = data, .iov_len = len };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
	*fd = -1;
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return n;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(h), sizeof *fd);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		errno = EMSGSIZE;
		return -1;
	}
	return n;
}

/* child_in joins a user namespace, makes a network namespace that belongs to
 * it, and hands that back. It holds nothing that a process of that user
 * namespace could want: not dumpable, every other descriptor closed. */
static void child_in(int user, int sock)
{
	int32_t err = 0;
	if (dup3(sock, 0, O_CLOEXEC) < 0 || dup3(user, 1, O_CLOEXEC) < 0 || syscall(SYS_close_range, 2, ~0U, 0))
		_exit(1);
	int fd = -1;
	if (setns(1, CLONE_NEWUSER))
		err = errno;
	else if ((fd = enter_new()) < 0)
		err = -fd;
	_exit(send_fd(0, &err, sizeof err, fd < 0 ? -1 : fd) ? 1 : 0);
}

static int make_in(int user)
{
	int pair[2], fd = -1, status;
	int32_t err = EIO;
	if (ioctl(user, NS_GET_NSTYPE) != CLONE_NEWUSER)
		return -EINVAL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	pid_t pid = fork();
	if (pid < 0) {
		err = errno;
	} else if (pid == 0) {
		child_in(user, pair[1]);
	} else {
		struct pollfd p = { .fd = pair[0], .events = POLLIN };
		close(pair[1]);
		pair[1] = -1;
		if (poll(&p, 1, CHILD_MS) != 1 || recv_fd(pair[0], &err, sizeof err, &fd) != sizeof err)
			err = ETIMEDOUT;
		kill(pid, SIGKILL);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
	if (err && fd >= 0) {
		close(fd);
		fd = -1;
	}
	return err ? -err : fd;
}

/* put keeps fd, which becomes ours, under a key. */
static int put(const char *key, uint32_t len, int fd, struct reply *r)
{
	struct statfs fs;
	struct stat st;
	struct entry *e = find(key, len);
	if (e) {
		r->n = e->fd;
		r->ino = e->ino;
		return EEXIST;
	}
	if (len == 0)
		return EINVAL;
	if (used == KEYS_MAX)
		return ENOSPC;
	if (fstatfs(fd, &fs) || fs.f_type != NSFS_MAGIC || ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET || fstat(fd, &st))
		return EINVAL;
	e = &entries[used++];
	e->hash = hash_of(key, len);
	e->ino = st.st_ino;
	e->fd = fd;
	e->key_len = len;
	memcpy(e->key, key, len);
	r->n = fd;
	r->ino = e->ino;
	return 0;
}

static void drop(const char *key, uint32_t len, struct reply *r)
{
	struct entry *e = find(key, len);
	if (!e)
		return;
	r->ino = e->ino;
	close(e->fd);
	*e = entries[--used];
	for (uint32_t i = 0; i < used; i++)
		if (entries[i].ino == r->ino)
			r->n++;
}

/* list fills out, behind the reply, with entries from index on. */
static size_t list(uint32_t index, struct reply *r)
{
	size_t len = sizeof *r;
	for (; index < used; index++) {
		struct entry *e = &entries[index];
		struct listed l = { .ino = e->ino, .n = e->fd, .key_len = e->key_len };
		if (len + sizeof l + e->key_len > sizeof out) {
			r->n = index;
			break;
		}
		memcpy(out + len, &l, sizeof l);
		memcpy(out + len + sizeof l, e->key, e->key_len);
		len += sizeof l + e->key_len;
	}
	return len;
}

/* answer carries out one request. It owns fd. It returns 0 to keep the client. */
static int answer(int sock, const struct request *q, const char *key, int fd)
{
	struct reply r = { 0 };
	size_t len = sizeof r;
	int give = -1, give_closes = 0, quit = 0;
	struct entry *e;
	switch (q->op) {
	case OP_HELLO:
		r.n = getpid();
		break;
	case OP_MAKE:
		give = fd < 0 ? make_here() : make_in(fd);
		give_closes = 1;
		r.err = give < 0 ? -give : 0;
		break;
	case OP_PUT:
		r.err = fd < 0 ? EBADF : put(key, q->key_len, fd, &r);
		if (!r.err)
			fd = -1; /* kept */
		break;
	case OP_GET:
		e = find(key, q->key_len);
		r.err = e ? 0 : ENOENT;
		if (e) {
			give = e->fd;
			r.n = e->fd;
			r.ino = e->ino;
		}
		break;
	case OP_LIST:
		len = list(q->arg, &r);
		break;
	case OP_DROP:
		drop(key, q->key_len, &r);
		break;
	case OP_QUIT:
		r.err = used && !q->arg ? EBUSY : 0;
		quit = !r.err;
		break;
	default:
		r.err = ENOSYS;
	}
	memcpy(out, &r, sizeof r);
	int gone = send_fd(sock, out, len, give);
	if (give_closes && give >= 0)
		close(give);
	if (fd >= 0)
		close(fd);
	if (quit)
		_exit(0);
	return gone;
}

/* serve reads one request of a client; it returns 0 to keep the client. */
static int serve(int sock)
{
	struct {
		struct request q;
		char key[KEY_MAX];
	} in;
	int fd;
	ssize_t n = recv_fd(sock, &in, sizeof in, &fd);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < (ssize_t)sizeof in.q || in.q.version != VERSION || n != (ssize_t)(sizeof in.q + in.q.key_len)) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return answer(sock, &in.q, in.key, fd);
}

static void welcome(void)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	int s = accept4(LISTEN_FD, NULL, NULL, SOCK_CLOEXEC);
	if (s < 0)
		return;
	if (clients == CLIENTS_MAX || getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.uid != geteuid()) {
		close(s);
		return;
	}
	polls[1 + clients++] = (struct pollfd){ .fd = s, .events = POLLIN };
}

/* limits: descriptors for every key, and only the capabilities that making a
 * namespace needs. Not dumpable, so that a process that shares the machine's
 * pid namespace cannot trace this one for having less than it. */
static int limits(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l))
		return -1;
	rlim_t need = KEYS_MAX + CLIENTS_MAX + 32;
	l.rlim_cur = l.rlim_max < need ? l.rlim_max : need;
	if (setrlimit(RLIMIT_NOFILE, &l))
		return -1;
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { { 0 }, { 0 } }, have[2];
	if (syscall(SYS_capget, &h, have))
		return -1;
	d[0].permitted = have[0].permitted & ((1U << CAP_SYS_ADMIN) | (1U << CAP_NET_ADMIN));
	d[0].effective = d[0].permitted;
	if (syscall(SYS_capset, &h, d))
		return -1;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* idle is called when nothing has come for look_ms. */
static void idle(void)
{
	struct stat st;
	if (!clients && !fstat(LOCK_FD, &st) && st.st_nlink == 0)
		_exit(0);
}

int main(int argc, char **argv)
{
	look_ms = argc == 2 ? atoi(argv[1]) * 1000 : 0;
	if (look_ms <= 0)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	if (syscall(SYS_close_range, LOCK_FD + 1, ~0U, 0) || fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC) ||
	    fcntl(LOCK_FD, F_SETFD, FD_CLOEXEC) || limits() || chdir("/"))
		return 3;
	home_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home_ns < 0)
		return 4;
	polls[0] = (struct pollfd){ .fd = LISTEN_FD, .events = POLLIN };
	for (;;) {
		int n = poll(polls, 1 + clients, look_ms);
		if (n == 0)
			idle();
		if (n <= 0)
			continue;
		for (int i = clients; i >= 1; i--) {
			if (polls[i].revents && serve(polls[i].fd)) {
				close(polls[i].fd);
				polls[i] = polls[clients--];
			}
		}
		if (polls[0].revents & POLLIN)
			welcome();
	}
}
