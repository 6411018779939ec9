// SPDX-License-Identifier: MIT
//
// Fatal: how Ebb ends a process (fatal.h), and the write that fmt.h promises: all system calls of
// base. Raw, because base is below os/sys.h, and because libc's are not good enough here: write(2)
// of libc is a cancellation point and stores to errno, which on the releaser's thread belongs to
// somebody else, and abort(3) takes a lock.
//
// Go  runtime/panic.go fatalthrow; runtime/signal_unix.go dieFromSignal.
#include "base/fatal.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"

// raw_call makes a system call; the result is the value or a negative errno.
#if defined(__x86_64__)
static long raw_call(long nr, long a, long b, long c, long d)
{
    long ret;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return ret;
}
#elif defined(__aarch64__)
static long raw_call(long nr, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#else
#error "Ebb runs on x86-64 and arm64"
#endif

// The kernel's struct sigaction, the same on both processors; zeroed it means the default action.
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

#define KERNEL_SIGSET_BYTES 8

// (A) the function fatal calls, as a pointer to data, which POSIX lets a function pointer be
static atomic_ptr fatal_hook;
// (A) how many threads came to fatal; only the first runs the hook, also if the hook itself fails
static atomic_u32 fatal_count;

bool fmt_write(const struct fmt *f, int fd)
{
    size_t done = 0;
    while (done < f->len) {
        const char *rest = f->buf + done;
        long n = raw_call(SYS_write, fd, (long)(uintptr_t)rest, (long)(f->len - done), 0);
        if (n == -EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static void raise_abort(void)
{
    // Asked each time: after vfork a number kept from earlier would be the parent's.
    long pid = raw_call(SYS_getpid, 0, 0, 0, 0);
    long tid = raw_call(SYS_gettid, 0, 0, 0, 0);
    raw_call(SYS_tgkill, pid, tid, SIGABRT, 0);
}

// The steps of abort(3) without its lock. Another thread that installs a handler between the second
// and the third step can survive the signal, hence exit_group, which nothing survives.
ATTR_NORETURN static void die(void)
{
    uint64_t only_abort = UINT64_C(1) << (SIGABRT - 1);
    raw_call(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)(uintptr_t)&only_abort, 0, KERNEL_SIGSET_BYTES);
    raise_abort();
    struct kernel_sigaction by_default = {0};
    raw_call(SYS_rt_sigaction, SIGABRT, (long)(uintptr_t)&by_default, 0, KERNEL_SIGSET_BYTES);
    // A handler that ran for the first one without SA_NODEFER has returned: not blocked any more,
    // unless it changed the mask of its context.
    raw_call(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)(uintptr_t)&only_abort, 0, KERNEL_SIGSET_BYTES);
    raise_abort();
    for (;;) {
        raw_call(SYS_exit_group, 127, 0, 0, 0);
    }
}

static void print_line(const char *lead, const char *text)
{
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    // One byte less, so that a cut line still ends in a newline.
    fmt_init(&line, buf, sizeof buf - 1);
    fmt_str(&line, lead);
    fmt_str(&line, text);
    buf[line.len++] = '\n';
    fmt_write(&line, STDERR_FILENO);
}

void fatal_set_hook(void (*hook)(void))
{
    // pairs with load_acquire in fatal
    store_release(&fatal_hook, (void *)hook);
}

void fatal(const char *text)
{
    print_line("ebb: fatal: ", text);
    void *hook = load_acquire(&fatal_hook); // pairs with store_release in fatal_set_hook
    // Relaxed: only the count itself matters.
    if (hook != NULL && add_relaxed(&fatal_count, 1) == 0) {
        ((void (*)(void))hook)();
    }
    die();
}

void fatal_user(const struct fmt *line)
{
    print_line("ebb: ", line->cap == 0 ? "" : line->buf);
    die();
}
