/* SPDX-License-Identifier: Apache-2.0 */
/* What a program looks like in memory. northstar/engine/instructions.py has the same numbers; a test compares. */

#ifndef NORTHSTAR_ENGINE_PROGRAM_H
#define NORTHSTAR_ENGINE_PROGRAM_H

#include <stdint.h>

/* Every process receives its programs from this descriptor, a sequential-packet socket (unix(7)). */
#define CHANNEL 3

/* Programs name memory by its address, so everything has a fixed place; 64 KiB are a page on any machine. */
#define BOARD_ADDRESS 0x10000000UL
#define BOARD_SIZE 4096UL
#define PROGRAM_ADDRESS 0x10010000UL
#define PROGRAM_LIMIT 0x4000000UL

#define PROGRAM_MAGIC 0x3150534eU /* "NSP1" */
#define MIN_PAGE_SIZE 4096U
#define MAX_DESCRIPTORS 252U /* SCM_MAX_FD, without the memfd */
#define MAX_ERRNO 4095U
#define NO_REGISTER 0xffffU
#define ANY_ERROR 0xffffU
#define NO_SUCH_PATH 0xfffeU /* the errors of a path that leads to nothing */

/*
 * The message that brings a program; a memfd with its memory comes with it, and the descriptors that it uses.
 * The memory is writable up to the steps and read-only from there. Offsets are from PROGRAM_ADDRESS.
 */
struct program {
    uint32_t magic;
    uint32_t size;             /* of the memory, in bytes */
    uint32_t steps;            /* offset of the first step, a multiple of the page size */
    uint32_t step_count;
    uint32_t registers;        /* offset of the first register, a multiple of 8, before the steps */
    uint32_t register_count;
    uint32_t descriptor_count; /* without the memfd; they are in the first registers */
    uint32_t reserved;         /* 0 */
};

enum operation {
    /* result = system call `number` of the arguments; a negative result is a failure with that errno, */
    /* unless it is `tolerated` */
    OP_CALL,
    /* result = clone3(arguments 0 and 1); the new process goes on at step `number`, without a handler */
    OP_CLONE,
    /* Go on at step `number` if argument 0 is negative */
    OP_JUMP_NEGATIVE,
    /* result = argument 0 */
    OP_SET,
    /* result = the 32 bit number at address argument 0 */
    OP_LOAD,
    /* Store argument 1, cut to 32 bits, at address argument 0 */
    OP_STORE,
    /* Fail with errno argument 4 unless argument 2 bytes at arguments 0 and 1 are the same (argument 3 is 1), */
    /* or not the same (argument 3 is 0) */
    OP_COMPARE,
    /* Fail with errno argument 2 unless arguments 0 and 1 are equal */
    OP_EXPECT,
    /* From here on a failure before step `number` goes on there */
    OP_HANDLER,
    /* Wait for the end of children until process argument 0 has ended; result = its wait status (wait(2)) */
    OP_REAP,
    /* As OP_CALL, once for each bit that is set in argument 5, with the number of the bit as argument 1 */
    OP_CALL_EACH,
    OPERATION_COUNT,
};

struct step {
    uint16_t operation;
    uint16_t from_register; /* bit i: argument i is the number of a register */
    uint16_t result;        /* register, or NO_REGISTER */
    uint16_t tolerated;     /* errno, ANY_ERROR or NO_SUCH_PATH; 0 for none */
    uint32_t number;        /* of a system call or a step */
    uint32_t retries;       /* how often a call is repeated after EAGAIN or EINTR */
    uint64_t arguments[6];
};

/* What a process says. The board begins with the record of the first failure. */
struct report {
    uint32_t kind;
    int32_t value; /* errno, pid or wait status */
    uint32_t step; /* of a failure; NO_STEP if the program itself is no good */
};

#define REPORT_FAILED 'F'
#define NO_STEP 0xffffffffU

#endif
