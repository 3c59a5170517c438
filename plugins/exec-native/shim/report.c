/*
 * report.c - messages of a fixed size, from the init to the monitor and from
 * the monitor to the driver.
 */
#include "shim.h"

/* Room for one descriptor, as the kernel lays it out. */
struct one_fd {
	struct cmsghdr head;
	int fd;
	int pad;
};

int report_send(int fd, struct report *r, int pass)
{
	struct one_fd control = { { sizeof control.head + sizeof control.fd, SOL_SOCKET, SCM_RIGHTS },
				  pass, 0 };
	struct iovec part = { r, sizeof *r };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd < 0)
		return -EBADF;
	if (pass >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof control;
	}
	r->magic = REPORT_MAGIC;
	r->time = (uint64_t)sys_clock(CLOCK_REALTIME);
	long n = SYS3(__NR_sendmsg, fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? (int)n : 0;
}

/* 1, 0 at the end, or a negative errno. */
int report_receive(int fd, struct report *r, int *passed, int flags)
{
	struct one_fd control = { 0 };
	struct iovec part = { r, sizeof *r };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1,
			    .msg_control = &control, .msg_controllen = sizeof control };
	long n;

	do
		n = SYS3(__NR_recvmsg, fd, &m, flags | MSG_CMSG_CLOEXEC);
	while (n == -EINTR);
	*passed = -1;
	if (n <= 0)
		return (int)n;
	if (m.msg_controllen >= sizeof control.head + sizeof(int) &&
	    control.head.cmsg_type == SCM_RIGHTS)
		*passed = control.fd;
	return n == sizeof *r && r->magic == REPORT_MAGIC ? 1 : -EPROTO;
}
