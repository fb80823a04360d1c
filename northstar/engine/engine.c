/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: carries out lists of system calls.
 *
 * The daemon decides, the engine executes. A *program* is a list of steps, nearly all of them system calls with
 * their arguments, and the memory that these point to. It arrives on the channel, descriptor 3, as a sealed memfd
 * together with the descriptors that it uses. A step may clone the process; the clone goes on elsewhere in the
 * same program, and when that ends it waits for the next one, on a channel of its own. So the engine, which the
 * daemon starts, the init of a container, and the process that becomes the application are this one loop.
 *
 * It knows nothing of containers, and there is nothing else in the address space: no C library, no heap. It trusts
 * the daemon, which could do everything itself. What a program asks of the kernel is not judged; that the
 * program is well-formed is, so that a mistake is reported and not executed. Jumps lead forward only: whatever a
 * program says, it ends.
 */

#include "program.h"
#include "system.h"

/* The board is a page of memory that a program may replace by one that is shared with its clones. */
static volatile struct report *const board = (struct report *)BOARD_ADDRESS;

static _Noreturn void leave(int status) {
    for (;;)
        CALL1(SYS_exit_group, status);
}

/* Note a failure. The first one is the cause, be it that of a clone. */
static void record(long error, uint32_t step) {
    if (board->kind != 0)
        return;
    board->value = (int32_t)-error;
    board->step = step;
    board->kind = REPORT_FAILED;
}

/* --- receiving a program */

struct message {
    struct program program;
    int32_t descriptors[1 + MAX_DESCRIPTORS]; /* the memfd first */
    uint32_t count;
};

static void close_all(const struct message *message) {
    for (uint32_t i = 0; i < message->count; i++)
        CALL1(SYS_close, message->descriptors[i]);
}

/* Wait for a message; 0, or a negative errno. Ends the process if the other end is gone. */
static long receive(struct message *message) {
    struct {
        struct control_header header;
        int32_t descriptors[1 + MAX_DESCRIPTORS];
    } control;
    struct iovec part = {&message->program, sizeof message->program};
    struct message_header header = {0, 0, &part, 1, &control, 0, 0};
    long length;
    do {
        header.control_length = sizeof control;
        length = CALL3(SYS_recvmsg, CHANNEL, &header, MSG_CMSG_CLOEXEC);
    } while (length == -EINTR);
    /* A message may be empty; what comes with it tells it from the end. */
    if (length < 0 || (length == 0 && header.control_length == 0))
        leave(0);
    message->count = 0;
    if (header.control_length < sizeof control.header)
        return -EBADF;
    if (control.header.level != SOL_SOCKET || control.header.type != SCM_RIGHTS)
        return -EINVAL;
    message->count = (uint32_t)((control.header.length - sizeof control.header) / sizeof(int32_t));
    for (uint32_t i = 0; i < message->count; i++)
        message->descriptors[i] = control.descriptors[i];
    if (header.flags & (MSG_TRUNC | MSG_CTRUNC))
        return -E2BIG;
    return length == (long)sizeof message->program ? 0 : -ENOEXEC;
}

/* --- checking it */

static int has_room(uint64_t begin, uint64_t end, uint64_t count, uint64_t each) {
    return begin % 8 == 0 && begin <= end && count * each <= end - begin;
}

static int head_is_good(const struct program *p, uint32_t descriptors) {
    return p->magic == PROGRAM_MAGIC && p->reserved == 0 && p->size > 0 && p->size <= PROGRAM_LIMIT &&
           p->steps % MIN_PAGE_SIZE == 0 && has_room(p->steps, p->size, p->step_count, sizeof(struct step)) &&
           has_room(p->registers, p->steps, p->register_count, sizeof(uint64_t)) &&
           p->register_count <= NO_REGISTER && p->descriptor_count <= p->register_count &&
           p->descriptor_count == descriptors;
}

static const struct step *step_at(const struct program *p, uint32_t index) {
    return (const struct step *)(PROGRAM_ADDRESS + p->steps) + index;
}

static int is_errno(uint64_t number) {
    return number > 0 && number <= MAX_ERRNO;
}

static int step_is_good(const struct program *p, uint32_t index) {
    const struct step *step = step_at(p, index);
    const uint64_t *a = step->arguments;
    if (step->operation >= OPERATION_COUNT || step->from_register >= 1 << 6)
        return 0;
    if (step->result != NO_REGISTER && step->result >= p->register_count)
        return 0;
    for (int i = 0; i < 6; i++)
        if (step->from_register >> i & 1 && a[i] >= p->register_count)
            return 0;
    switch (step->operation) {
    case OP_CLONE:
    case OP_JUMP_NEGATIVE:
    case OP_HANDLER:
        return step->number > index && step->number < p->step_count;
    case OP_COMPARE:
        return is_errno(a[4]) && !(step->from_register >> 4 & 1);
    case OP_EXPECT:
        return is_errno(a[2]) && !(step->from_register >> 2 & 1);
    default:
        return 1;
    }
}

static int steps_are_good(const struct program *p) {
    for (uint32_t i = 0; i < p->step_count; i++)
        if (!step_is_good(p, i))
            return 0;
    return 1;
}

/* Map the memory of a program at its place; 0, or a negative errno. */
static long map(const struct program *p, int memfd) {
    long seals = CALL3(SYS_fcntl, memfd, F_GET_SEALS, 0);
    if (seals < 0)
        return seals;
    if (~seals & (F_SEAL_SHRINK | F_SEAL_WRITE))
        return -EPERM;
    /* Behind the end of a file there is no memory. */
    if (CALL3(SYS_lseek, memfd, 0, SEEK_END) != (long)p->size)
        return -ENOEXEC;
    long address = CALL6(SYS_mmap, PROGRAM_ADDRESS, p->size, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, memfd, 0);
    if (address < 0)
        return address;
    return p->steps ? CALL3(SYS_mprotect, PROGRAM_ADDRESS, p->steps, PROT_READ | PROT_WRITE) : 0;
}

/* --- carrying it out */

static uint64_t *register_at(const struct program *p, uint64_t index) {
    return (uint64_t *)(PROGRAM_ADDRESS + p->registers) + index;
}

/* Whether the engine itself may use this memory; the kernel looks after that of system calls. */
static int within(const struct program *p, uint64_t address, uint64_t length) {
    uint64_t begin = PROGRAM_ADDRESS, end = PROGRAM_ADDRESS + p->steps;
    if (address < PROGRAM_ADDRESS) {
        begin = BOARD_ADDRESS;
        end = BOARD_ADDRESS + BOARD_SIZE;
    }
    return address >= begin && address <= end && length <= end - address;
}

static long compare(const struct program *p, const uint64_t a[6]) {
    if (!within(p, a[0], a[2]) || !within(p, a[1], a[2]))
        return -EINVAL;
    const unsigned char *one = (const unsigned char *)a[0], *other = (const unsigned char *)a[1];
    uint64_t i = 0;
    while (i < a[2] && one[i] == other[i])
        i++;
    return (i == a[2]) == (a[3] != 0) ? 0 : -(long)a[4];
}

static long load(const struct program *p, uint64_t address) {
    if (!within(p, address, 4) || address % 4)
        return -EINVAL;
    return (long)*(volatile uint32_t *)address;
}

static long store(const struct program *p, uint64_t address, uint64_t value) {
    if (!within(p, address, 4) || address % 4)
        return -EINVAL;
    *(volatile uint32_t *)address = (uint32_t)value;
    return 0;
}

/* Wait for children, whoever they are, until this one has ended. Process 1 gets those of others as well. */
static long reap(long pid) {
    int32_t status = 0;
    for (;;) {
        long ended = CALL6(SYS_wait4, -1, &status, 0, 0, 0, 0);
        if (ended == pid)
            return status;
        if (ended < 0 && ended != -EINTR)
            return ended;
    }
}

/* openat2(2) wants to be repeated if something has been renamed meanwhile; others hold on to that, so there is an end. */
static long call(const struct step *step, const uint64_t a[6]) {
    long result = enter(step->number, a);
    for (uint32_t i = 0; i < step->retries && (result == -EAGAIN || result == -EINTR); i++)
        result = enter(step->number, a);
    return result;
}

/* A call for each member of a set, as there are 41 capabilities; 0, or the first failure. */
static long call_each(const struct step *step, const uint64_t a[6]) {
    uint64_t one[6] = {a[0], 0, a[2], a[3], a[4], 0};
    for (uint64_t bit = 0; bit < 64; bit++) {
        one[1] = bit;
        long result = a[5] >> bit & 1 ? call(step, one) : 0;
        if (result < 0)
            return result;
    }
    return 0;
}

/* What a step results in; an errno is negative. */
static long perform(const struct program *p, const struct step *step, const uint64_t a[6]) {
    switch (step->operation) {
    case OP_CALL:
        return call(step, a);
    case OP_CLONE:
        return CALL3(SYS_clone3, a[0], a[1], 0);
    case OP_SET:
        return (long)a[0];
    case OP_LOAD:
        return load(p, a[0]);
    case OP_STORE:
        return store(p, a[0], a[1]);
    case OP_COMPARE:
        return compare(p, a);
    case OP_EXPECT:
        return a[0] == a[1] ? 0 : -(long)a[2];
    case OP_REAP:
        return reap((long)a[0]);
    case OP_CALL_EACH:
        return call_each(step, a);
    default:
        return 0;
    }
}

static int is_tolerated(const struct step *step, long error) {
    if (step->tolerated == NO_SUCH_PATH)
        return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG;
    return step->tolerated == ANY_ERROR || step->tolerated == error;
}

static int is_failure(const struct step *step, long result) {
    if (step->operation == OP_SET || result >= 0 || result < -(long)MAX_ERRNO)
        return 0;
    return !is_tolerated(step, -result);
}

/* Carry a program out; 0, or -1 after a failure that it does not handle. A clone sets `is_clone`. */
static int run(const struct program *p, int *is_clone) {
    uint32_t handler = 0;
    int cloned = 0;
    for (uint32_t index = 0; index < p->step_count;) {
        const struct step *step = step_at(p, index);
        uint64_t a[6];
        for (int i = 0; i < 6; i++)
            a[i] = step->from_register >> i & 1 ? *register_at(p, step->arguments[i]) : step->arguments[i];
        long result = perform(p, step, a);
        if (is_failure(step, result)) {
            record(result, index);
            /* One that lies behind would lead back. */
            if (handler > index) {
                index = handler;
                handler = 0;
                continue;
            }
            /* A clone has no channel of its own yet, and must not speak on that of its parent. */
            if (cloned)
                leave(127);
            return -1;
        }
        if (step->result != NO_REGISTER)
            *register_at(p, step->result) = (uint64_t)result;
        if (step->operation == OP_CLONE && result == 0) {
            *is_clone = cloned = 1;
            handler = 0;
            index = step->number;
        } else if (step->operation == OP_JUMP_NEGATIVE && (long)a[0] < 0) {
            index = step->number;
        } else {
            if (step->operation == OP_HANDLER)
                handler = step->number;
            index++;
        }
    }
    return 0;
}

/* Check and carry out what has been received; 0, or -1 if there is a failure to report. */
static int execute(const struct message *message, int *is_clone) {
    const struct program *p = &message->program;
    int outcome = -1;
    long error = -ENOEXEC;
    if (message->count > 0 && head_is_good(p, message->count - 1))
        error = map(p, message->descriptors[0]);
    if (error == 0 && !steps_are_good(p))
        error = -ENOEXEC;
    if (error < 0) {
        record(error, NO_STEP);
    } else {
        CALL1(SYS_close, message->descriptors[0]);
        for (uint32_t i = 1; i < message->count; i++)
            *register_at(p, i - 1) = (uint64_t)message->descriptors[i];
        outcome = run(p, is_clone);
    }
    CALL3(SYS_munmap, PROGRAM_ADDRESS, PROGRAM_LIMIT, 0);
    return outcome;
}

/* Entry point. `is_clone` stays 0 in the process that the daemon started, and only there. */
_Noreturn void engine(void) {
    int is_clone = 0;
    long address = CALL6(SYS_mmap, BOARD_ADDRESS, BOARD_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (address != (long)BOARD_ADDRESS)
        leave(1);
    for (;;) {
        struct message message;
        long error = receive(&message);
        board->kind = 0;
        if (error < 0)
            record(error, NO_STEP);
        int outcome = error < 0 ? -1 : execute(&message, &is_clone);
        /* A clone has arranged its descriptors anew. */
        if (!is_clone)
            close_all(&message);
        if (outcome < 0)
            CALL3(SYS_write, CHANNEL, board, sizeof *board);
        if (outcome < 0 && is_clone)
            leave(1);
    }
}
