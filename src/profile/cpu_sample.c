// SPDX-License-Identifier: MIT
//
// CPU samples: who runs, asked a hundred times in each second of processor time of each thread.
//
// Model
//   Each thread has a timer of its own, driven by the processor time it uses, that sends it a
//   signal. The handler unwinds the stack it has interrupted into the next slot of a buffer.
//   Threads that begin during the profile get their timers when they are found, ten times a second.
//   A thread that sleeps gets no signal.
//   state   IDLE -> STARTING -> RUNNING -> STARTING -> IDLE: one profile at a time.
//
// Locking
//   None. The handler takes a slot by adding to a counter. What it does is nothing that the thread
//   it interrupts could be in the middle of: no lock, no memory, no libc.
//
// Flow
//   cpu_sample_run: signal and buffer -> a timer for each thread -> handlers -> timers away -> set.
//
// Why this way
//   One timer for the process (ITIMER_PROF) favours threads at random and loses most signals where
//   many run; by thread, each is asked by its own use.
//
// Go       1.19 os_linux.go setThreadCPUProfiler, setProcessCPUProfiler; proc.go sigprof.
// Tests    test/system/cpu_profile.py

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "os/clock.h"
#include "os/futex.h"
#include "os/procfs.h"
#include "os/sigaction.h"
#include "os/sys.h"
#include "profile/profile.h"

#define PERIOD_NS (NS_PER_S / CPU_SAMPLE_HZ)
#define RESCAN_NS (100 * NS_PER_MS)
#define THREADS_MAX 4096
#define SLOTS_MAX ((size_t)1 << 18) // half an hour of one busy processor, ten minutes of four
#define THREAD_NAME_BYTES 16

enum cpu_state {
    CPU_IDLE,
    CPU_STARTING,
    CPU_RUNNING,
};

struct cpu_slot {
    atomic_u32 depth; // (A) not 0: written. Pairs: handler and collector
    uint32_t weight;  // periods it stands for
    uint32_t thread;  // index
    const struct labels *labels;
    uintptr_t stack[PROFILE_DEPTH_MAX];
};

struct cpu_thread {
    int tid;
    int timer; // the kernel's number, -1: none
    bool alive;
    char name[THREAD_NAME_BYTES];
};

static struct {
    atomic_u32 state;                        // (A) enum cpu_state
    atomic_u32 restricted;                   // (A)
    atomic_u32 inside;                       // (A) handlers at work
    atomic_u32 next;                         // (A) slot
    atomic_u32 sleeper;                      // (A) nobody wakes it: for the time-out
    const struct labels *(*labels_of)(void); // (C) of the calling thread
    uint32_t signal;                         // (state) chosen once, kept; 0: none yet
    struct cpu_slot *slots;
    struct cpu_thread *threads; // (state)
    size_t thread_count;        // (state)
    size_t mapped_bytes;
} cpu;

const struct profile_kind cpu_sample_kind = {
    .name = "cpu",
    .help = "Where processor time goes, watched for some seconds.",
    .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
    .type_count = 2,
    .period_type = {"cpu", "nanoseconds"},
    .text = PROFILE_TEXT_TABLE,
    .run = cpu_sample_run,
};

// --- the handler ---

static void cpu_record(const siginfo_t *info, const void *context)
{
    uint32_t index = add_relaxed(&cpu.next, 1);
    if (index >= SLOTS_MAX) {
        return; // counted by next
    }
    struct cpu_slot *slot = &cpu.slots[index];
    slot->weight = 1 + (info->si_overrun > 0 ? (uint32_t)info->si_overrun : 0);
    slot->thread = (uint32_t)info->si_value.sival_int;
    slot->labels = cpu.labels_of != NULL ? cpu.labels_of() : NULL;
    uint32_t depth = unwind_interrupted(context, slot->stack, PROFILE_DEPTH_MAX);
    store_release(&slot->depth, depth); // pairs with load_acquire in set_fill
}

static void cpu_handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    if (info->si_code != SI_TIMER) {
        return;
    }
    add_seq(&cpu.inside, 1); // pairs with load_seq in slots_close
    if (load_seq(&cpu.state) == CPU_RUNNING) {
        cpu_record(info, context);
    }
    sub_seq(&cpu.inside, 1);
}

// --- timers ---

// The clock of a thread's processor time, as the kernel encodes it (clock_getcpuclockid(3)).
static long thread_clock(int tid)
{
    return (long)((unsigned)~tid << 3 | 6u);
}

static void timer_start(struct cpu_thread *thread, size_t index)
{
    struct sigevent event;
    memset(&event, 0, sizeof(event));
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = (int)cpu.signal;
    event.sigev_value.sival_int = (int)index;
    event._sigev_un._tid = thread->tid;
    thread->timer = -1;
    int timer;
    if (sys_call3(SYS_timer_create, (int)thread_clock(thread->tid), &event, &timer) != 0) {
        return; // it has ended, or the process may have no more timers
    }
    // Out of step: the first one after a part of the period that differs by thread.
    uint64_t first_ns = 1 + (uint64_t)thread->tid * UINT64_C(2654435761) % PERIOD_NS;
    struct itimerspec times = {
        .it_interval = {.tv_nsec = (long)PERIOD_NS},
        .it_value = {.tv_nsec = (long)first_ns},
    };
    if (sys_call4(SYS_timer_settime, timer, 0, &times, NULL) != 0) {
        sys_call1(SYS_timer_delete, timer);
        return;
    }
    thread->timer = timer;
}

static void thread_name(struct cpu_thread *thread)
{
    char path[64];
    char text[THREAD_NAME_BYTES + 1];
    struct fmt line;
    fmt_init(&line, path, sizeof(path));
    fmt_str(&line, "/proc/self/task/");
    fmt_i64(&line, thread->tid);
    fmt_str(&line, "/comm");
    long count = procfs_file_read(path, text, sizeof(text));
    while (count > 0 && (text[count - 1] == '\n' || text[count - 1] == '\0')) {
        count--;
    }
    if (count <= 0) {
        return; // it has ended: what it was called before stays
    }
    size_t length = min_size((size_t)count, THREAD_NAME_BYTES - 1);
    memcpy(thread->name, text, length);
    thread->name[length] = '\0';
}

static void thread_seen(int tid)
{
    for (size_t i = 0; i < cpu.thread_count; i++) {
        if (cpu.threads[i].tid == tid) {
            cpu.threads[i].alive = true;
            return;
        }
    }
    if (cpu.thread_count == THREADS_MAX) {
        return;
    }
    struct cpu_thread *thread = &cpu.threads[cpu.thread_count];
    *thread = (struct cpu_thread){.tid = tid, .alive = true};
    thread_name(thread);
    timer_start(thread, cpu.thread_count);
    cpu.thread_count++;
}

struct task_entry {
    uint64_t inode;
    int64_t offset;
    unsigned short bytes;
    unsigned char type;
    char name[];
};

// Gives timers to threads that have none yet. False: /proc cannot be read.
static bool threads_scan(void)
{
    _Alignas(8) char buf[4096];
    long fd =
        sys_call4(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    for (size_t i = 0; i < cpu.thread_count; i++) {
        cpu.threads[i].alive = false;
    }
    long count;
    while ((count = sys_call3(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
        for (long pos = 0; pos < count;) {
            const struct task_entry *entry = (const struct task_entry *)(void *)(buf + pos);
            uint64_t tid;
            if (procfs_number_u64(entry->name, strlen(entry->name), &tid)) {
                thread_seen((int)tid);
            }
            pos += entry->bytes;
        }
    }
    sys_call1(SYS_close, fd);
    // A thread that has ended leaves its timer behind; and its number may come again.
    for (size_t i = 0; i < cpu.thread_count; i++) {
        struct cpu_thread *thread = &cpu.threads[i];
        if (!thread->alive && thread->tid != 0) {
            if (thread->timer >= 0) {
                sys_call1(SYS_timer_delete, thread->timer);
            }
            thread->timer = -1;
            thread->tid = 0;
        }
    }
    return true;
}

// --- a profile ---

static bool slots_open(void)
{
    size_t bytes = SLOTS_MAX * sizeof(struct cpu_slot) + THREADS_MAX * sizeof(struct cpu_thread);
    long addr = sys_call6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (addr == 0 || (unsigned long)addr >= (unsigned long)-4095) {
        return false;
    }
    cpu.slots = (struct cpu_slot *)addr;
    cpu.threads = (struct cpu_thread *)(cpu.slots + SLOTS_MAX);
    cpu.mapped_bytes = bytes;
    cpu.thread_count = 0;
    store_relaxed(&cpu.next, 0);
    return true;
}

static void slots_close(void)
{
    sys_call2(SYS_munmap, cpu.slots, cpu.mapped_bytes);
    cpu.slots = NULL;
    store_seq(&cpu.state, CPU_IDLE); // pairs with the swap in cpu_sample_run
}

// Ends timers and waits for handlers that have begun.
static void timers_stop(void)
{
    for (size_t i = 0; i < cpu.thread_count; i++) {
        if (cpu.threads[i].timer >= 0) {
            sys_call1(SYS_timer_delete, cpu.threads[i].timer);
        }
        thread_name(&cpu.threads[i]); // again: many name themselves after they have begun
    }
    store_seq(&cpu.state, CPU_STARTING); // not running: pairs with load_seq in cpu_handler
    while (load_seq(&cpu.inside) != 0) { // pairs with sub_seq in cpu_handler
        futex_wait(&cpu.sleeper, 0, NS_PER_MS);
    }
}

static bool set_fill(struct profile_set *set)
{
    uint32_t taken = load_relaxed(&cpu.next);
    uint32_t count = taken < SLOTS_MAX ? taken : (uint32_t)SLOTS_MAX;
    for (uint32_t i = 0; i < count; i++) {
        const struct cpu_slot *slot = &cpu.slots[i];
        uint32_t depth = load_acquire(&slot->depth); // pairs with store_release in cpu_record
        if (depth == 0 || slot->thread >= cpu.thread_count) {
            continue;
        }
        struct profile_sample sample = {
            .stack = slot->stack,
            .depth = depth,
            .leaf_exact = true,
            .values = {slot->weight, (int64_t)(slot->weight * PERIOD_NS)},
            .labels = {{.key = "thread", .text = cpu.threads[slot->thread].name}},
            .label_count = 1,
        };
        profile_sample_label(&sample, slot->labels);
        if (!profile_set_add(set, &sample)) {
            return false;
        }
    }
    if (taken > count) {
        profile_set_comment(set, "samples were lost: there were more than 262144");
    }
    if (cpu.thread_count == THREADS_MAX) {
        profile_set_comment(set, "threads were left out: there were more than 4096");
    }
    return true;
}

static void watch(uint64_t until_ns, const atomic_u32 *stop)
{
    uint64_t now_ns = clock_now_ns();
    while (now_ns < until_ns && (stop == NULL || load_relaxed(stop) == 0)) {
        futex_wait(&cpu.sleeper, 0, min_u64(until_ns - now_ns, RESCAN_NS));
        threads_scan();
        now_ns = clock_now_ns();
    }
}

static long signal_ensure(void)
{
    if (cpu.signal == 0 || !sigaction_is(cpu.signal, cpu_handler)) {
        cpu.signal = sigaction_choose(cpu_handler);
    }
    return cpu.signal != 0 ? 0 : -EAGAIN;
}

// In state STARTING, which this thread has set.
static long profile_run(struct profile_set *set, uint64_t duration_ns, const atomic_u32 *stop)
{
    uintptr_t warm[PROFILE_DEPTH_MAX];
    // What the unwinder does once must not happen in a handler that interrupts it.
    unwind_stack(warm, PROFILE_DEPTH_MAX);
    long error = signal_ensure();
    if (error != 0) {
        return error;
    }
    if (!slots_open()) {
        return -ENOMEM;
    }
    set->time_ns = clock_wall_ns();
    set->period = (int64_t)PERIOD_NS;
    uint64_t began_ns = clock_now_ns();
    store_seq(&cpu.state, CPU_RUNNING); // pairs with load_seq in cpu_handler
    if (threads_scan()) {
        watch(began_ns + duration_ns, stop);
    } else {
        error = -EACCES;
    }
    timers_stop();
    set->duration_ns = clock_now_ns() - began_ns;
    if (error == 0 && !set_fill(set)) {
        error = -ENOMEM;
    }
    return error;
}

long cpu_sample_run(struct profile_set *set, uint64_t duration_ns, const atomic_u32 *stop)
{
    uint32_t idle = CPU_IDLE;
    if (load_relaxed(&cpu.restricted) != 0) {
        return -EPERM;
    }
    if (!cas_seq(&cpu.state, &idle, CPU_STARTING)) { // pairs with store_seq in slots_close
        return -EBUSY;
    }
    long error = profile_run(set, duration_ns, stop);
    if (cpu.slots != NULL) {
        slots_close();
    } else {
        store_seq(&cpu.state, CPU_IDLE); // as slots_close
    }
    return error;
}

void cpu_sample_set_labels(const struct labels *(*labels_of)(void))
{
    cpu.labels_of = labels_of;
}

void cpu_sample_restrict(void)
{
    store_relaxed(&cpu.restricted, 1);
}

void cpu_sample_fork_child(void)
{
    if (load_relaxed(&cpu.state) == CPU_IDLE) {
        return;
    }
    store_relaxed(&cpu.inside, 0);
    if (cpu.slots != NULL) {
        slots_close();
    }
    store_relaxed(&cpu.state, CPU_IDLE);
}
