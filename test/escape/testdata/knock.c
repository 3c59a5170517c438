/*
 * knock.c - run in a container that has the network of another one's runtime:
 * tries every abstract socket whose name holds the word given, and every path
 * of a gate, with the order to go on that opens a gate (plan/launch.go).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int try(const char *name, int type)
{
	const uint32_t go[4] = { 0x4d485347, 3, 0, 0 };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t n = strlen(name);
	int fd = socket(AF_UNIX, type, 0);

	if (n >= sizeof a.sun_path)
		return 0;
	memcpy(a.sun_path, name, n);
	if (*name == '@')
		a.sun_path[0] = 0;
	if (connect(fd, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + n) < 0)
		return 0;
	return send(fd, go, sizeof go, 0) == sizeof go && sleep(1) == 0;
}

int main(int argc, char **argv)
{
	char line[512];
	FILE *f = fopen("/proc/net/unix", "r");
	int tried = 0;

	if (!f || argc < 2)
		return 1;
	while (fgets(line, sizeof line, f)) {
		char *name = strrchr(line, ' ');

		if (!name)
			continue;
		name[strcspn(name, "\n")] = 0;
		name++;
		if (*name == '@' ? !strstr(name, argv[1]) : !strstr(name, "/gate"))
			continue;
		tried++;
		if (try(name, SOCK_SEQPACKET) || try(name, SOCK_STREAM))
			printf("said go to %s\n", name);
	}
	printf("tried %d\n", tried);
	return 0;
}
