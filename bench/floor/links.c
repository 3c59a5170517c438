/* Links, by raw netlink messages (rtnetlink(7)). */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct message {
	struct nlmsghdr head;
	char body[1024];
};

static void *begin(struct message *m, int type, int flags, size_t size)
{
	memset(m, 0, sizeof *m);
	m->head.nlmsg_len = NLMSG_LENGTH(size);
	m->head.nlmsg_type = type;
	m->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	return NLMSG_DATA(&m->head);
}

static struct rtattr *attribute(struct message *m, int type, const void *data, size_t size)
{
	struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));
	a->rta_type = type;
	a->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(a), data, size);
	m->head.nlmsg_len = NLMSG_ALIGN(m->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

static void close_nest(struct message *m, struct rtattr *a)
{
	a->rta_len = (char *)m + m->head.nlmsg_len - (char *)a;
}

static void ask_kernel(int s, struct message *m, const char *what)
{
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
		char more[4096];
	} answer;
	if (send(s, m, m->head.nlmsg_len, 0) < 0 || recv(s, &answer, sizeof answer, 0) < 0)
		die("%s", what);
	errno = answer.h.nlmsg_type == NLMSG_ERROR ? -answer.e.error : EPROTO;
	if (errno)
		die("%s", what);
}

static int rtnetlink(void)
{
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (s < 0)
		die("netlink socket");
	return s;
}

void make_bridge(void)
{
	int s = rtnetlink();
	struct message m;
	struct ifinfomsg *i = begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *i);
	i->ifi_flags = i->ifi_change = IFF_UP;
	attribute(&m, IFLA_IFNAME, "floor", 6);
	struct rtattr *info = attribute(&m, IFLA_LINKINFO, NULL, 0);
	attribute(&m, IFLA_INFO_KIND, "bridge", 6);
	close_nest(&m, info);
	ask_kernel(s, &m, "make the bridge");
	close(s);
}

/* One message makes both ends of a veth: ours on the bridge, the other inside. */
static void make_veth(int s, int round, int netns, int bridge)
{
	struct message m;
	char name[16];
	format_to(name, sizeof name, "floor%d", round);
	struct ifinfomsg *i = begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *i);
	i->ifi_flags = i->ifi_change = IFF_UP;
	attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
	attribute(&m, IFLA_MASTER, &bridge, sizeof bridge);
	struct rtattr *info = attribute(&m, IFLA_LINKINFO, NULL, 0);
	attribute(&m, IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = attribute(&m, IFLA_INFO_DATA, NULL, 0);
	struct ifinfomsg inside = { 0 }; /* up later: not before it knows its peer */
	struct rtattr *peer = attribute(&m, VETH_INFO_PEER, &inside, sizeof inside);
	attribute(&m, IFLA_IFNAME, "eth0", 5);
	attribute(&m, IFLA_NET_NS_FD, &netns, sizeof netns);
	close_nest(&m, peer);
	close_nest(&m, data);
	close_nest(&m, info);
	ask_kernel(s, &m, "make a veth pair");
}

int link_up(const char *name)
{
	struct ifreq r = { .ifr_flags = IFF_UP | IFF_RUNNING };
	strncpy(r.ifr_name, name, sizeof r.ifr_name - 1);
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int err = s < 0 || ioctl(s, SIOCSIFFLAGS, &r);
	close(s);
	return err;
}

int prepare(int round, int home)
{
	int s = rtnetlink(), bridge = if_nametoindex("floor");
	if (unshare(CLONE_NEWNET) || link_up("lo"))
		die("make a network namespace");
	int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	make_veth(s, round, fd, bridge); /* the socket belongs to where it was opened */
	if (fd < 0 || link_up("eth0") || setns(home, CLONE_NEWNET))
		die("come back from the network namespace");
	close(s);
	return fd;
}
