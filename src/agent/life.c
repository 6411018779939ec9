// SPDX-License-Identifier: MIT
//
// The agent's coming and going: by options, by the API, by the control socket; pause, fork, end.
//
// Model
//   want_*   what is to be open. wants is raised with every change; acted follows when the door has
//            done it.
//   running  NONE -> RUNNING by who starts the keeper; -> NONE by the keeper at its end.
//   held     above 0 while the program changes its credentials, and at its end: nobody starts.
//   era      raised by whoever ends the agent; it belongs to the era in which it was started.
//
// Flow
//   agent_open -> want -> keeper_start, or the door is rung -> acted_wait -> error or address.
//
// Go  gops agent.go Listen, Close.
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/agent_int.h"
#include "ebb/agent.h"
#include "ledger/ledger.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/sys.h"

// As in control/signal.c, for the same reasons.
#define END_NS (100 * NS_PER_MS)
#define LEAVE_NS (5 * NS_PER_S)
#define GONE_NS (100 * NS_PER_MS)
#define OPEN_NS (5 * NS_PER_S)

// A worker reads DWARF and deflates; its tables are not on the stack, but its calls are deep.
#define WORKER_STACK_BYTES (256 * KIB)
#define DOOR_STACK_BYTES (64 * KIB)

// Is there an agent of this process to act on? The order matters: getpid may be forbidden.
static bool agent_is_ours(void)
{
    uint32_t pid = load_relaxed(&agent_main.pid);
    return pid != 0 &&
           load_seq(&agent_main.restricted) == 0 && // pairs with store_seq in agent_restrict
           (uint32_t)sys_call0(SYS_getpid) == pid;
}

static void mutex_take(void)
{
    uint32_t expected = 0;
    while (!cas_acquire(&agent_main.mutex, &expected, 1)) { // pairs with mutex_give
        futex_wait(&agent_main.mutex, 1, NS_PER_MS);
        expected = 0;
    }
}

static void mutex_give(void)
{
    store_release(&agent_main.mutex, 0); // pairs with mutex_take
    futex_wake(&agent_main.mutex, 1);
}

// --- memory ---

static void block_give(struct bare_thread *thread, size_t stack_bytes, char **at)
{
    size_t bytes = bare_block_bytes(stack_bytes, vm_kernel.page_bytes);
    thread->stack_bytes = stack_bytes;
    thread->block_bytes = bytes;
    if (at != NULL) {
        thread->block = *at;
        *at += bytes;
    }
}

// One mapping for all there is: connections, and stacks.
static bool memory_ensure(void)
{
    if (agent_main.memory != NULL) {
        return true;
    }
    size_t conns_bytes = align_up(AGENT_CONNS * sizeof(struct conn), vm_kernel.page_bytes);
    size_t bytes = conns_bytes + 2 * bare_block_bytes(DOOR_STACK_BYTES, vm_kernel.page_bytes) +
                   AGENT_WORKERS * bare_block_bytes(WORKER_STACK_BYTES, vm_kernel.page_bytes);
    char *memory = vm_reserve(&vm_kernel, NULL, bytes, vm_kernel.page_bytes);
    if (memory == NULL || !vm_prepare(&vm_kernel, memory, bytes)) {
        return false;
    }
    char *at = memory + conns_bytes;
    block_give(&agent_main.keeper, DOOR_STACK_BYTES, &at);
    block_give(&agent_main.door, DOOR_STACK_BYTES, &at);
    for (size_t i = 0; i < AGENT_WORKERS; i++) {
        block_give(&agent_main.workers[i], WORKER_STACK_BYTES, &at);
    }
    agent_main.memory = memory;
    agent_main.memory_bytes = bytes;
    agent_main.conns = (struct conn *)(void *)memory;
    ledger_page_add_own(memory, bytes);
    return true;
}

// In a forked child, where none of the threads lives.
static void memory_forget(void)
{
    bare_forget(&agent_main.keeper);
    bare_forget(&agent_main.door);
    agent_main.keeper.block = NULL;
    agent_main.door.block = NULL;
    for (size_t i = 0; i < AGENT_WORKERS; i++) {
        bare_forget(&agent_main.workers[i]);
        agent_main.workers[i].block = NULL;
    }
    if (agent_main.memory != NULL) {
        ledger_page_add_own(agent_main.memory, 0);
        sys_call2(SYS_munmap, agent_main.memory, agent_main.memory_bytes);
    }
    agent_main.memory = NULL;
    agent_main.conns = NULL;
}

// --- start and stop ---

static long keeper_start(void)
{
    uint32_t expected = AGENT_NONE;
    // Pairs with store_seq in keeper_run and load_seq in agent_stop.
    if (!cas_seq(&agent_main.running, &expected, AGENT_RUNNING)) {
        agent_ring_door();
        return 0;
    }
    // First the era, then held: see control/signal.c server_start.
    uint32_t era = load_seq(&agent_main.era);
    long error = load_seq(&agent_main.held) != 0 ? -EAGAIN : 0;
    if (error == 0 && !memory_ensure()) {
        error = -ENOMEM;
    }
    // The last one may still be on its way out, on the stack that is to be used again.
    if (error == 0) {
        error = bare_wait_gone(&agent_main.keeper, GONE_NS) ? 0 : -EAGAIN;
    }
    if (error == 0) {
        agent_main.own_era = era;
        error = bare_start(&agent_main.keeper, &vm_kernel, keeper_run, NULL);
    }
    if (error != 0) {
        store_seq(&agent_main.running, AGENT_NONE); // pairs with load_seq in agent_stop
    }
    return error;
}

// Ends the agent, and lets none start till held is lowered again.
static bool agent_stop(uint64_t limit_ns)
{
    uint64_t until_ns = clock_now_ns() + limit_ns;
    add_seq(&agent_main.held, 1); // pairs with load_seq in keeper_start
    add_seq(&agent_main.era, 1);  // pairs with load_seq in agent_is_over
    // Pairs with the store_seq in keeper_run and keeper_start.
    while (load_seq(&agent_main.running) != AGENT_NONE) {
        if (clock_now_ns() >= until_ns) {
            return false;
        }
        agent_ring_door();
        futex_wait(&agent_main.running, AGENT_RUNNING, NS_PER_MS);
    }
    return bare_wait_gone(&agent_main.keeper, limit_ns);
}

static void agent_unhold(void)
{
    add_seq(&agent_main.held, UINT32_MAX); // minus 1; pairs with load_seq in keeper_start
}

// Waits until the door has acted on what is wanted.
static long acted_wait(uint32_t wants)
{
    uint64_t until_ns = clock_now_ns() + OPEN_NS;
    for (;;) {
        uint32_t acted = load_acquire(&agent_main.acted); // pairs with store_release in wants_act
        if (acted == wants) {
            return 0;
        }
        if (clock_now_ns() >= until_ns) {
            return -ETIMEDOUT;
        }
        futex_wait(&agent_main.acted, acted, 10 * NS_PER_MS);
        agent_ring_door(); // it may have been asleep before it had a number to be rung by
    }
}

// --- opening ---

static long wants_ask(void)
{
    uint32_t wants = add_seq(&agent_main.wants, 1) + 1; // pairs with load_acquire in wants_act
    long error = keeper_start();
    return error != 0 ? error : acted_wait(wants);
}

static long open_gops(void)
{
    if (agent_main.gops_where[0] != '\0') {
        return 0;
    }
    agent_main.want_gops = true;
    long error = wants_ask();
    error = error != 0 ? error : agent_main.gops_error;
    agent_main.want_gops = error == 0;
    return error;
}

static long open_http(const char *text)
{
    struct address address;
    size_t len = strlen(text);
    if (len >= AGENT_WHERE_BYTES || !address_parse(text, len, &address)) {
        return -EINVAL;
    }
    if (agent_main.http_where[0] != '\0') {
        return strcmp(agent_main.http_where, text) == 0 ? 0 : -EBUSY;
    }
    memcpy(agent_main.want_http, text, len + 1);
    long error = wants_ask();
    error = error != 0 ? error : agent_main.http_error;
    // The port the kernel chose stays, should the agent have to close for a while.
    memcpy(agent_main.want_http, agent_main.http_where, AGENT_WHERE_BYTES);
    return error;
}

static bool is_gops(const char *what)
{
    return strcmp(what, "gops") == 0;
}

long agent_open(const char *what, char *where, size_t cap)
{
    // Pairs with store_seq in agent_restrict.
    if (load_seq(&agent_main.restricted) != 0 || getauxval(AT_SECURE) != 0 ||
        options_main.syscalls == OPTION_SYSCALLS_CORE) {
        return -EPERM;
    }
    if (lock_am_freezer()) {
        return -EAGAIN; // another library's fork handler: a thread would be lost in the child
    }
    mutex_take();
    store_relaxed(&agent_main.pid, (uint32_t)sys_call0(SYS_getpid));
    long error = is_gops(what) ? open_gops() : open_http(what);
    mutex_give();
    if (error == 0 && where != NULL) {
        agent_where(is_gops(what), where, cap);
    }
    return error;
}

void agent_where(bool gops, char *where, size_t cap)
{
    struct fmt out;
    fmt_init(&out, where, cap);
    fmt_str(&out, gops ? agent_main.gops_where : agent_main.http_where);
}

void agent_close(void)
{
    if (!agent_is_ours()) {
        return;
    }
    mutex_take();
    agent_main.want_http[0] = '\0';
    agent_main.want_gops = false;
    agent_stop(LEAVE_NS);
    agent_unhold();
    mutex_give();
}

const char *agent_error_text(long error)
{
    switch (error) {
    case -EINVAL:
        return "this is no address; right are 127.0.0.1:PORT, localhost:PORT, [::1]:PORT, "
               "unix:/PATH";
    case -EBUSY:
        return "it listens at another address already";
    case -EPERM:
        return "an address that others can reach needs http_allow=any, and there is no agent under "
               "a system call filter, with syscalls=core or in a set-user-ID program";
    case -EAGAIN:
        return "the process forks or changes its user just now";
    case -ETIMEDOUT:
        return "the machine is too busy";
    case -EADDRINUSE:
        return "the address is in use";
    case -EADDRNOTAVAIL:
        return "this machine does not have the address";
    case -EACCES:
        return "permission denied";
    case -ENOENT:
        return "there is no such folder";
    case -ENAMETOOLONG:
        return "the path is too long for a socket";
    case -ENOMEM:
        return "there is no memory";
    default:
        return "the kernel refuses it";
    }
}

// --- life ---

static void init_say(const char *option, const char *what, const char *text)
{
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "ebb: ");
    fmt_str(&line, option);
    fmt_str(&line, what);
    fmt_str(&line, text);
    fmt_char(&line, '\n');
    fmt_write(&line, STDERR_FILENO);
}

static void init_http(const char *text)
{
    char where[AGENT_WHERE_BYTES];
    long error = agent_open(text, where, sizeof(where));
    if (error != 0) {
        init_say("option http: cannot listen at ", text, "");
        init_say("  ", agent_error_text(error), "");
    } else if (strcmp(where, text) != 0) {
        init_say("http listens at ", where, "");
    }
}

// A list that names nobody is no reason to stay closed, but one to say so.
static void init_allow(const char *text)
{
    struct allow allow;
    allow_read(text, &allow);
    if (allow.unknown) {
        init_say("option http_allow: ", text,
                 " names a user that /etc/passwd does not have; who has that name is not let in");
    }
}

void agent_init(const struct agent_environment *environment)
{
    const char *http = options_main.http.text;
    gops_folder_from(environment, agent_main.gops_folder, sizeof(agent_main.gops_folder));
    if (http[0] == '\0' && !options_main.gops) {
        return;
    }
    if (options_main.syscalls == OPTION_SYSCALLS_CORE) {
        init_say("", "options http and gops need syscalls=full", "; the agent stays closed");
        return;
    }
    init_allow(options_main.http_allow.text);
    if (http[0] != '\0') {
        init_http(http);
    }
    if (options_main.gops) {
        long error = agent_open("gops", NULL, 0);
        if (error != 0) {
            init_say("option gops: ", agent_error_text(error), "");
        }
    }
}

void agent_fork_child(void)
{
    if (load_relaxed(&agent_main.pid) == 0) {
        return;
    }
    memory_forget();
    store_relaxed(&agent_main.mutex, 0);
    store_relaxed(&agent_main.running, AGENT_NONE);
    store_relaxed(&agent_main.held, 0);
    store_relaxed(&agent_main.door_tid, 0);
    store_relaxed(&agent_main.release_ask, 0);
    store_relaxed(&agent_main.cpu_busy, 0);
    agent_main.worker_count = 0;
    agent_main.http_where[0] = '\0';
    agent_main.gops_where[0] = '\0';
    agent_main.want_http[0] = '\0';
    agent_main.want_gops = false;
    store_relaxed(&agent_main.pid, 0);
    if (load_relaxed(&agent_main.restricted) != 0 || !options_main.children) {
        return; // no getpid either, if restricted
    }
    memcpy(agent_main.want_http, options_main.http.text, AGENT_WHERE_BYTES);
    agent_main.want_gops = options_main.gops;
    if (agent_main.want_http[0] != '\0' || agent_main.want_gops) {
        store_relaxed(&agent_main.pid, (uint32_t)sys_call0(SYS_getpid));
        add_seq(&agent_main.wants, 1); // pairs with load_acquire in wants_act
        keeper_start();
    }
}

void agent_pause(void)
{
    if (agent_is_ours()) {
        agent_stop(LEAVE_NS);
    }
}

void agent_resume(void)
{
    if (!agent_is_ours()) {
        return;
    }
    agent_unhold();
    if (agent_main.want_http[0] != '\0' || agent_main.want_gops) {
        keeper_start();
    }
}

void agent_restrict(void)
{
    if (!agent_is_ours()) {
        store_seq(&agent_main.restricted, 1); // pairs with load_seq in agent_open
        return;
    }
    store_seq(&agent_main.restricted, 1); // pairs with load_seq in agent_open
    agent_stop(LEAVE_NS);
}

void agent_end(void)
{
    if (agent_is_ours()) {
        agent_stop(END_NS);
    }
}

// --- the API ---

ATTR_EXPORT int ebb_agent_start(const char *address)
{
    return address == NULL ? -EINVAL : (int)agent_open(address, NULL, 0);
}

ATTR_EXPORT int ebb_agent_address(int kind, char *buf, size_t bytes)
{
    char where[AGENT_WHERE_BYTES];
    if (buf == NULL || (kind != EBB_AGENT_HTTP && kind != EBB_AGENT_GOPS)) {
        return -EINVAL;
    }
    agent_where(kind == EBB_AGENT_GOPS, where, sizeof(where));
    size_t len = strlen(where);
    if (len == 0) {
        return -ENOENT;
    }
    if (len >= bytes) {
        return -ERANGE;
    }
    memcpy(buf, where, len + 1);
    return 0;
}

ATTR_EXPORT void ebb_agent_stop(void)
{
    agent_close();
}
