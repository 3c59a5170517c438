/*
 * hello is the program of the image that every engine brings along: it says
 * where it finds itself, by the kernel's word alone.
 *
 * Freestanding: no C library, so that the image is a few kilobytes. The build
 * is in gen/main.go. x86-64 only so far.
 */
#include <asm/unistd.h>
#include <linux/if.h>
#include <linux/in.h>
#include <linux/sockios.h>
#include <linux/utsname.h>

#ifndef __x86_64__
#error "hello knows the system calls of x86-64 only"
#endif

static long call(long n, long a, long b, long c)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}

/* Output is gathered and written once: it is one piece in the log too. */
static char text[2048];
static unsigned long length;

static void put(const char *s)
{
	while (*s && length < sizeof text)
		text[length++] = *s++;
}

static void number(unsigned long n)
{
	char digits[24], *p = digits + sizeof digits;
	*--p = 0;
	do
		*--p = '0' + n % 10;
	while (n /= 10);
	put(p);
}

/* addresses lists every interface that has an IPv4 address. */
static void addresses(void)
{
	struct ifreq found[16];
	struct ifconf conf = { .ifc_len = sizeof found, .ifc_req = found };
	long s = call(__NR_socket, 2 /* AF_INET */, 2 /* SOCK_DGRAM */, 0);
	if (s < 0 || call(__NR_ioctl, s, SIOCGIFCONF, (long)&conf) < 0) {
		put(" unknown");
		return;
	}
	int count = conf.ifc_len / (int)sizeof *found;
	for (int i = 0; i < count; i++) {
		const unsigned char *a = (const unsigned char *)&((struct sockaddr_in *)&found[i].ifr_addr)->sin_addr;
		put(i ? ", " : " ");
		put(found[i].ifr_name);
		for (int b = 0; b < 4; b++) {
			put(b ? "." : " ");
			number(a[b]);
		}
	}
	if (!count)
		put(" none");
}

__attribute__((noreturn, used)) static void hello(void)
{
	struct new_utsname u;
	put("Hello from gantry.\n\n"
	    "This program runs in a container of its own. It sees:\n\n"
	    "  hostname   ");
	put(call(__NR_uname, (long)&u, 0, 0) < 0 ? "unknown" : u.nodename);
	put("\n  pid        ");
	number(call(__NR_getpid, 0, 0, 0));
	put("\n  user       ");
	number(call(__NR_getuid, 0, 0, 0));
	put("\n  addresses ");
	addresses();
	put("\n\nHow it came to run: gantry log --tree\n");

	unsigned long done = 0;
	while (done < length) {
		long n = call(__NR_write, 1, (long)text + done, length - done);
		if (n < 0 && n != -4 /* EINTR */)
			break;
		done += n > 0 ? n : 0;
	}
	call(__NR_exit_group, done < length, 0, 0);
	__builtin_unreachable();
}

/* The kernel enters with a stack that is aligned to 16 bytes; a call wants 8 more. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall hello\n");
