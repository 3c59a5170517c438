/*
 * options.c - the sanitizers' settings in a whole shim built with them: it is
 * executed with an empty environment and without standard error. Leaks are not
 * looked for, since the shim is not dumpable and cannot be traced.
 *
 *	gcc -DHOSTED -DREPORTS='"/tmp/x"' -g -O1 -std=gnu11 \
 *		-fsanitize=address,undefined -fno-sanitize-recover=all \
 *		-o gantry-shim-hosted *.c hosted/options.c
 */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:exitcode=99:log_path=" REPORTS;
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1:exitcode=99:log_path=" REPORTS;
}
