/* A program that behaves ill, by its first argument. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* ignorant PROGRAM ARG...: without its parent-death signal, deaf to what can be
 * ignored. */
static int ignorant(char **argv)
{
	prctl(PR_SET_PDEATHSIG, 0);
	for (int s = 1; s < 32; s++)
		signal(s, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	execv(argv[0], argv);
	perror(argv[0]);
	return 1;
}

/* undying PROGRAM ARG...: without its parent-death signal. */
static int undying(char **argv)
{
	prctl(PR_SET_PDEATHSIG, 0);
	execv(argv[0], argv);
	perror(argv[0]);
	return 1;
}

/* borrowed: sleeps in D until its child, which borrows its memory, is gone. */
static int borrowed(void)
{
	pid_t p = vfork();

	if (p == 0) {
		for (;;)
			pause();
	}
	return p < 0;
}

/* bomb: as many processes as there can be. */
_Noreturn static void bomb(void)
{
	for (;;) {
		if (fork() < 0)
			usleep(10000);
	}
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "ignorant"))
		return ignorant(argv + 2);
	if (argc > 2 && !strcmp(argv[1], "undying"))
		return undying(argv + 2);
	if (argc == 2 && !strcmp(argv[1], "borrowed"))
		return borrowed();
	if (argc == 2 && !strcmp(argv[1], "bomb"))
		bomb();
	fprintf(stderr, "usage: ill ignorant|undying PROGRAM ARG..., ill borrowed|bomb\n");
	return 2;
}
