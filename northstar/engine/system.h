/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel as the engine sees it: how to enter a system call, and the few numbers it uses itself. */

#ifndef NORTHSTAR_ENGINE_SYSTEM_H
#define NORTHSTAR_ENGINE_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)

enum {
    SYS_write = 1,
    SYS_close = 3,
    SYS_lseek = 8,
    SYS_mmap = 9,
    SYS_mprotect = 10,
    SYS_munmap = 11,
    SYS_recvmsg = 47,
    SYS_wait4 = 61,
    SYS_fcntl = 72,
    SYS_exit_group = 231,
    SYS_clone3 = 435,
};

/* Arguments in rdi, rsi, rdx, r10, r8, r9; rcx and r11 are lost (syscall(2)). */
static inline long enter(long number, const uint64_t a[6]) {
    register uint64_t r10 __asm__("r10") = a[3];
    register uint64_t r8 __asm__("r8") = a[4];
    register uint64_t r9 __asm__("r9") = a[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* The kernel starts a program with its arguments on the stack and no return address. */
__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    and $-16, %rsp\n"
        "    call engine\n"
        "    hlt\n");

#elif defined(__aarch64__)

enum {
    SYS_fcntl = 25,
    SYS_close = 57,
    SYS_lseek = 62,
    SYS_write = 64,
    SYS_exit_group = 94,
    SYS_recvmsg = 212,
    SYS_munmap = 215,
    SYS_mmap = 222,
    SYS_mprotect = 226,
    SYS_wait4 = 260,
    SYS_clone3 = 435,
};

/* Number in x8, arguments in x0 to x5 (syscall(2)). */
static inline long enter(long number, const uint64_t a[6]) {
    register long x8 __asm__("x8") = number;
    register uint64_t x0 __asm__("x0") = a[0];
    register uint64_t x1 __asm__("x1") = a[1];
    register uint64_t x2 __asm__("x2") = a[2];
    register uint64_t x3 __asm__("x3") = a[3];
    register uint64_t x4 __asm__("x4") = a[4];
    register uint64_t x5 __asm__("x5") = a[5];
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return (long)x0;
}

__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    bl engine\n");

#else
#error "northstar-engine: only x86-64 and aarch64 are supported"
#endif

enum { EPERM = 1, ENOENT = 2, EINTR = 4, E2BIG = 7, ENOEXEC = 8, EBADF = 9, EAGAIN = 11, ENOTDIR = 20, EINVAL = 22 };
enum { ENAMETOOLONG = 36, ELOOP = 40 };

enum { PROT_READ = 1, PROT_WRITE = 2 };
enum { MAP_PRIVATE = 0x02, MAP_ANONYMOUS = 0x20, MAP_FIXED_NOREPLACE = 0x100000 };
enum { SEEK_END = 2 };
enum { F_GET_SEALS = 1034, F_SEAL_SHRINK = 0x2, F_SEAL_WRITE = 0x8 };
enum { SOL_SOCKET = 1, SCM_RIGHTS = 1, MSG_CTRUNC = 0x8, MSG_TRUNC = 0x20, MSG_CMSG_CLOEXEC = 0x40000000 };

struct iovec {
    void *base;
    size_t length;
};

/* cmsg(3); the kernel's layout on 64-bit machines. */
struct message_header {
    void *name;
    uint32_t name_length;
    struct iovec *parts;
    size_t part_count;
    void *control;
    size_t control_length;
    uint32_t flags;
};

struct control_header {
    size_t length;
    int32_t level;
    int32_t type;
};

#define CALL6(number, a, b, c, d, e, f)                                                                   \
    enter(number, (const uint64_t[6]){(uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d),         \
                                      (uint64_t)(e), (uint64_t)(f)})
#define CALL3(number, a, b, c) CALL6(number, a, b, c, 0, 0, 0)
#define CALL1(number, a) CALL6(number, a, 0, 0, 0, 0, 0)

#endif
