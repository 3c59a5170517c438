/*
 * rt.c - what a C library would do before main: the entry, the stack
 * protector, and the few functions that the compiler itself calls.
 */
#include "shim.h"

#ifdef HOSTED

int main(void) { return shim_main(); }

#else

uintptr_t __stack_chk_guard = 0x5bd1e995u;

void __stack_chk_fail(void);
void start_c(const long *sp);

void __stack_chk_fail(void) { sys_exit(134); }

#if defined(__x86_64__)
__asm__(".text\n.globl _start\n.type _start,@function\n_start:\n"
	"xor %ebp,%ebp\nmov %rsp,%rdi\nand $-16,%rsp\ncall start_c\nhlt\n");
#else
__asm__(".text\n.globl _start\n.type _start,%function\n_start:\n"
	"mov x29,#0\nmov x30,#0\nmov x0,sp\nbl start_c\nbrk #0\n");
#endif

#define AT_RANDOM 25

/* The guard changes here, so this function cannot have one. */
__attribute__((noreturn, used, optimize("no-stack-protector"))) void start_c(const long *sp)
{
	const long *p = sp + 1 + sp[0] + 1;

	while (*p)
		p++;
	for (p++; *p; p += 2)
		if (*p == AT_RANDOM)
			__stack_chk_guard = *(const uintptr_t *)p[1] & ~(uintptr_t)0xff;
	sys_exit(shim_main());
	__builtin_unreachable();
}

/* Words of any alignment: pieces of output pass through here on their way to a
 * second process, everything else is small. */
struct word {
	uint64_t v;
} __attribute__((packed, may_alias));

__attribute__((optimize("no-tree-loop-distribute-patterns")))
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	uint8_t *a = to;
	const uint8_t *b = from;

	for (; n >= sizeof(struct word); n -= sizeof(struct word)) {
		((struct word *)a)->v = ((const struct word *)b)->v;
		a += sizeof(struct word);
		b += sizeof(struct word);
	}
	while (n--)
		*a++ = *b++;
	return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns")))
void *memset(void *to, int c, size_t n)
{
	uint8_t *a = to;

	while (n--)
		*a++ = (uint8_t)c;
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (; n--; x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

__attribute__((optimize("no-tree-loop-distribute-patterns")))
size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

#endif

/* CRC-32 (IEEE), bit by bit: it only ever sees headers. */
uint32_t crc32(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t crc = 0xffffffffu;

	while (n--) {
		crc ^= *b++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* put_number writes v in decimal into to (20 bytes at least); its length. */
size_t put_number(char *to, uint64_t v)
{
	char digits[20];
	size_t n = 0, i;

	do
		digits[n++] = (char)('0' + v % 10);
	while (v /= 10);
	for (i = 0; i < n; i++)
		to[i] = digits[n - 1 - i];
	return n;
}
