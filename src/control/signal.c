// SPDX-License-Identifier: MIT
//
// The signal that opens the control socket: choosing it, its handler, and the server's coming and
// going through start, pause, fork and exit.
//
// Model
//   running  NONE -> RUNNING by the handler that wins; -> NONE by the worker at its end, or by a
//            handler that must not start it.
//   held     above 0 while the program changes its credentials, and at its end: nobody starts.
//   era      raised by whoever ends the server; it belongs to the era in which it was started.
//   tid      of the door, for the signal that wakes it.
//
// Go  1.16 signal_unix.go initsig, sigInstallGoHandler; preempt by sigPreempt is the like use.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

#include "base/option.h"
#include "control/control_int.h"
#include "ledger/ledger.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/sigaction.h"
#include "os/sys.h"

struct control control_main;

struct control_page control_page = {
    .magic = CONTROL_PAGE_MAGIC,
    .version = CONTROL_PAGE_VERSION,
};

// How long the program waits for the server to go. At its end, shortly. Before it loses privileges,
// or may no longer do what the server does, as long as a busy machine needs to run a thread that
// has nothing left to do (117 ms seen with three spinning processes on two processors), or a
// request to come to its end.
#define END_NS (100 * NS_PER_MS)
#define LEAVE_NS (5 * NS_PER_S)
#define GONE_NS (100 * NS_PER_MS)

void control_state_set(enum control_state state)
{
    store_seq(&control_page.state, (uint32_t)state); // pairs with load_seq below
    if (load_seq(&control_main.restricted) != 0) {   // pairs with store_seq in control_restrict
        store_seq(&control_page.state, CONTROL_RESTRICTED);
    }
}

// Is there a door of this process to act on? Not in a child of vfork, or of a fork that libc does
// not know: there this memory is another's. The order matters: getpid may be forbidden by a filter.
static bool door_is_ours(void)
{
    return options_main.control != OPTION_CONTROL_OFF &&
           load_seq(&control_main.restricted) == 0 && // pairs with store_seq in control_restrict
           (uint32_t)sys_call0(SYS_getpid) == load_relaxed(&control_page.pid);
}

// --- the server's threads ---

void control_opened(long error)
{
    store_relaxed(&control_page.error, (uint32_t)-error);
    // Before the state, because a reader outside waits for both; pairs with nothing of ours.
    add_seq(&control_page.generation, 1);
    control_state_set(error == 0 ? CONTROL_OPEN : CONTROL_FAILED);
}

bool control_is_over(void)
{
    return load_seq(&control_main.era) != control_main.own_era; // pairs with add_seq in server_stop
}

static void control_run(void *arg)
{
    (void)arg;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-control");
    for (;;) {
        uint32_t bell = load_seq(&control_main.bell); // pairs with add_seq in the handler
        if (!control_is_over()) {
            control_session();
        }
        store_seq(&control_main.running, CONTROL_NONE); // pairs with cas_seq in server_start
        uint32_t expected = CONTROL_NONE;
        if (load_seq(&control_main.bell) == bell || control_is_over() ||
            !cas_seq(&control_main.running, &expected, CONTROL_RUNNING)) {
            break;
        }
    }
}

// Makes the server look up. It blocks every signal, so that this one only ends its sleep.
static void server_ring(void)
{
    uint32_t tid = load_seq(&control_main.tid); // pairs with store_seq in door_run
    if (tid != 0) {
        sys_call3(SYS_tgkill, load_relaxed(&control_page.pid), tid,
                  load_relaxed(&control_page.signal));
    }
}

static void server_start(void)
{
    uint32_t expected = CONTROL_NONE;
    // Pairs with store_seq in control_run and load_seq in server_stop.
    if (!cas_seq(&control_main.running, &expected, CONTROL_RUNNING)) {
        server_ring();
        return;
    }
    // First the era, then held: who sees held at 0 before server_stop raises it has an era that
    // server_stop ends. Pairs with the add_seq there.
    uint32_t era = load_seq(&control_main.era);
    if (load_seq(&control_main.held) != 0) {
        store_seq(&control_main.running, CONTROL_NONE); // pairs with load_seq in server_stop
        return;
    }
    long error = -EAGAIN;
    // The last thread may still be on its way out, on the stack that is to be used again.
    if (bare_wait_gone(&control_main.worker, GONE_NS)) {
        control_main.own_era = era;
        error = bare_start(&control_main.worker, &vm_kernel, control_run, NULL);
    }
    if (error != 0) {
        store_seq(&control_main.running, CONTROL_NONE);
        control_opened(error);
        return;
    }
    ledger_page_add_own(control_main.worker.block, control_main.worker.block_bytes);
}

// Ends the server, and lets none start till held is lowered again.
static bool server_stop(uint64_t limit_ns)
{
    uint64_t until_ns = clock_now_ns() + limit_ns;
    add_seq(&control_main.held, 1); // pairs with load_seq in server_start
    add_seq(&control_main.era, 1);  // pairs with load_seq in control_is_over
    // Pairs with the store_seq in control_run and server_start.
    while (load_seq(&control_main.running) != CONTROL_NONE) {
        if (clock_now_ns() >= until_ns) {
            return false;
        }
        server_ring();
        futex_wait(&control_main.running, CONTROL_RUNNING, NS_PER_MS / 10);
    }
    return bare_wait_gone(&control_main.worker, limit_ns);
}

// --- the signal ---

// May interrupt anything: malloc in its bracket, a fork, another handler. So it starts the thread
// or rings it, and touches nothing of the heap.
static void control_handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    if (!door_is_ours()) {
        return;
    }
    add_seq(&control_main.bell, 1); // pairs with load_seq in control_run
    server_start();
}

// --- life ---

static void page_set_pid(void)
{
    store_relaxed(&control_page.pid, (uint32_t)sys_call0(SYS_getpid));
}

void control_init(const char *runtime_dir)
{
    ledger_page_main.control = (uintptr_t)&control_page;
    if (options_main.control == OPTION_CONTROL_OFF) {
        store_relaxed(&control_page.secure, getauxval(AT_SECURE) != 0);
        return;
    }
    page_set_pid();
    if (options_main.syscalls == OPTION_SYSCALLS_CORE) {
        store_relaxed(&control_main.restricted, 1);
        control_state_set(CONTROL_RESTRICTED);
        return;
    }
    if (runtime_dir != NULL && strlen(runtime_dir) < CONTROL_RUNTIME_BYTES) {
        memcpy(control_main.runtime_dir, runtime_dir, strlen(runtime_dir) + 1);
    }
    uint32_t number = sigaction_choose(control_handler);
    store_relaxed(&control_page.signal, number);
    control_state_set(number != 0 ? CONTROL_CLOSED : CONTROL_NO_SIGNAL);
    if (number != 0 && options_main.control == OPTION_CONTROL_ON) {
        server_start();
    }
}

void control_fork_child(void)
{
    if (options_main.control == OPTION_CONTROL_OFF) {
        return;
    }
    bare_forget(&control_main.worker);
    bare_forget(&control_main.door);
    store_relaxed(&control_main.tid, 0);
    store_relaxed(&control_main.held, 0); // whoever held it is not in this process
    store_relaxed(&control_main.running, CONTROL_NONE);
    if (load_relaxed(&control_main.restricted) != 0) {
        return; // no getpid either
    }
    page_set_pid();
    if (load_relaxed(&control_page.signal) == 0) {
        return;
    }
    control_state_set(CONTROL_CLOSED);
    if (options_main.control == OPTION_CONTROL_ON && options_main.children) {
        server_start();
    }
}

void control_pause(void)
{
    if (door_is_ours()) {
        server_stop(LEAVE_NS);
    }
}

void control_resume(void)
{
    if (door_is_ours()) {
        add_seq(&control_main.held, UINT32_MAX); // minus 1; pairs with load_seq in server_start
    }
}

void control_restrict(void)
{
    if (!door_is_ours()) {
        return;
    }
    store_seq(&control_main.restricted, 1); // pairs with the looks in the handler and state_set
    store_seq(&control_page.state, CONTROL_RESTRICTED);
    server_stop(LEAVE_NS);
}

void control_end(void)
{
    if (door_is_ours() && !server_stop(END_NS)) {
        // A request under way keeps it; what it leaves behind in the file system goes here.
        sys_call3(SYS_unlinkat, AT_FDCWD, control_page.path, 0);
    }
}
