/*
 * pause.c - of test builds only: holds the init where others had a window
 * between looking at a path and using it.
 */
#include "shim.h"

#ifdef TEST_PAUSES
void test_pause(int root, const char *path)
{
	char name[MAX_PATH + 8];
	size_t n = strlen(path);
	int fd;
	char c;

	memcpy(name, path + 1, n - 1);
	memcpy(name + n - 1, ".pause", 7);
	fd = (int)sys_openat(root, name, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	while (sys_read(fd, &c, 1) > 0)
		;
	sys_close(fd);
}
#endif
