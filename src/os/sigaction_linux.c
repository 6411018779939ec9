// SPDX-License-Identifier: MIT
//
// Sigaction on Linux.
//
// Go  1.16 os_linux.go setsig, sys_linux_amd64.s sigreturn.
#include "os/sigaction.h"

#include "os/sys.h"

#define SIGNAL_FIRST 63
#define SIGNAL_JAVA 62
#define SIGNAL_LAST 40

// What rt_sigaction takes; the same on both processors.
struct kernel_sigaction {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

#define KERNEL_SA_RESTORER 0x04000000u

// The handler returns here. No unwind information, on purpose: unwinders know these bytes.
#if defined(__x86_64__)
void sigaction_return(void) ATTR_HIDDEN;
__asm__(".pushsection .text\n\t.balign 16\n\tnop\n\t.hidden sigaction_return\n\t"
        ".globl sigaction_return\n\t.type sigaction_return, @function\nsigaction_return:\n\t"
        "movq $15, %rax\n\t" // SYS_rt_sigreturn
        "syscall\n\t"
        ".size sigaction_return, .-sigaction_return\n\t.popsection");
#endif

// Takes the signal if nobody has it.
static bool signal_take(int number, void (*handler)(int, siginfo_t *, void *))
{
    struct kernel_sigaction ours = {
        .handler = handler,
        .flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK,
        .mask = ~UINT64_C(0),
    };
    struct kernel_sigaction theirs = {0};
#if defined(__x86_64__)
    ours.flags |= KERNEL_SA_RESTORER;
    ours.restorer = sigaction_return;
#endif
    if (sys_call4(SYS_rt_sigaction, number, &ours, &theirs, sizeof(ours.mask)) != 0) {
        return false;
    }
    if (theirs.handler == NULL) { // SIG_DFL
        return true;
    }
    sys_call4(SYS_rt_sigaction, number, &theirs, NULL, sizeof(ours.mask));
    return false;
}

uint32_t sigaction_choose(void (*handler)(int number, siginfo_t *info, void *context))
{
    for (int number = SIGNAL_FIRST; number >= SIGNAL_LAST; number--) {
        if (number != SIGNAL_JAVA && signal_take(number, handler)) {
            return (uint32_t)number;
        }
    }
    return 0;
}

bool sigaction_is(uint32_t number, void (*handler)(int number, siginfo_t *info, void *context))
{
    struct kernel_sigaction now = {0};
    return sys_call4(SYS_rt_sigaction, number, NULL, &now, sizeof(now.mask)) == 0 &&
           now.handler == handler;
}
