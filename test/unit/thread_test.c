// SPDX-License-Identifier: MIT
// Tier  quick
//
// Threads: the exit hook, bare threads, the barrier. The hook is the heap's own in a process that
// has a heap; this one has none.
//
// Go  runtime/proc_test.go.
#include "support/unit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "os/futex.h"
#include "os/lock.h"
#include "os/thread.h"

static atomic_u32 exits;
static atomic_ptr exit_value;
static atomic_u32 other_destroyed;

static void on_exit_hook(void *value)
{
    store_relaxed(&exit_value, value);
    add_relaxed(&exits, 1);
}

static void other_destructor(void *value)
{
    (void)value;
    // Ours comes last: destructors of the program still find a cache.
    if (load_relaxed(&exits) == 0) {
        add_relaxed(&other_destroyed, 1);
    }
}

static pthread_key_t other_key;

static void *watched(void *arg)
{
    pthread_setspecific(other_key, arg);
    return thread_watch(arg) ? arg : NULL;
}

EBB_TEST(thread, exit_hook_runs_once_and_last)
{
    pthread_t thread;
    void *result = NULL;
    int mark = 0;
    frame_allow_mappings(20);
    thread_set_exit_hook(on_exit_hook);
    pthread_key_create(&other_key, other_destructor);
    cr_assert(pthread_create(&thread, NULL, watched, &mark) == 0);
    pthread_join(thread, &result);
    cr_assert(result == &mark);
    cr_assert(load_relaxed(&exits) == 1);
    cr_assert(load_relaxed(&exit_value) == (void *)&mark);
    cr_assert(load_relaxed(&other_destroyed) == 1, "another key's destructor ran after ours");
}

static void *pointer_of(void *arg)
{
    *(uintptr_t *)arg = thread_pointer();
    return NULL;
}

EBB_TEST(thread, pointers_differ)
{
    pthread_t thread;
    uintptr_t other = 0;
    frame_allow_mappings(20);
    cr_assert(pthread_create(&thread, NULL, pointer_of, &other) == 0);
    pthread_join(thread, NULL);
    cr_assert(other != 0 && other != thread_pointer());
    cr_assert(thread_pointer() == thread_pointer());
}

// --- bare threads ---

static struct bare_thread bare;
static atomic_u32 bare_runs;
static long bare_tid;
static uint64_t bare_mask;
static __thread int local = 4711;
static int bare_local;
static struct lock bare_lock = LOCK_INIT(META);

static void bare_run(void *arg)
{
    lock_acquire(&bare_lock);
    bare_tid = sys_call0(SYS_gettid);
    sys_call4(SYS_rt_sigprocmask, 0, 0, &bare_mask, sizeof(bare_mask));
    bare_local = local++;
    add_relaxed(&bare_runs, (uint32_t)(uintptr_t)arg);
    lock_release(&bare_lock);
}

static void bare_wait(void)
{
    for (int i = 0; i < 5000 && load_acquire(&bare.alive) != 0; i++) {
        futex_wait(&bare.alive, 1, NS_PER_MS);
    }
    cr_assert(load_acquire(&bare.alive) == 0, "the thread did not end");
}

EBB_TEST(thread, bare_thread_runs_and_ends)
{
    vm_init();
    for (uint32_t i = 1; i <= 50; i++) {
        cr_assert(bare_start(&bare, &vm_kernel, bare_run, (void *)(uintptr_t)1) == 0);
        bare_wait();
        cr_assert(load_relaxed(&bare_runs) == i);
        cr_assert(bare_tid != sys_call0(SYS_gettid) && bare_tid != 0);
        // All that can be blocked: not SIGKILL (9) and SIGSTOP (19).
        cr_assert(bare_mask == ~(UINT64_C(1) << 8 | UINT64_C(1) << 18), "mask %llx",
                  (unsigned long long)bare_mask);
        cr_assert(local == 4711, "a bare thread has thread-locals of its own");
        // They are zero at the first start; the block is kept for the next.
        cr_assert(i > 1 || bare_local == 0);
    }
}

EBB_TEST(thread, bare_thread_leaves_the_callers_mask)
{
    uint64_t before = 0;
    uint64_t after = 0;
    vm_init();
    sys_call4(SYS_rt_sigprocmask, 0, 0, &before, sizeof(before));
    cr_assert(bare_start(&bare, &vm_kernel, bare_run, (void *)(uintptr_t)1) == 0);
    sys_call4(SYS_rt_sigprocmask, 0, 0, &after, sizeof(after));
    cr_assert(before == after);
    bare_wait();
}

static void *refuse_reserve(void *ctx, void *hint, size_t bytes, size_t align)
{
    (void)ctx;
    (void)hint;
    (void)bytes;
    (void)align;
    return NULL;
}

EBB_TEST(thread, bare_thread_without_memory)
{
    const struct vm_ops ops = {.reserve = refuse_reserve};
    const struct vm vm = {.ops = &ops, .page_bytes = 4096};
    cr_assert(bare_start(&bare, &vm, bare_run, NULL) == -ENOMEM);
    cr_assert(load_relaxed(&bare.alive) == 0);
    cr_assert(bare_start(&bare, &vm_kernel, bare_run, (void *)(uintptr_t)1) == 0);
    bare_wait();
    bare_forget(&bare);
    cr_assert(load_relaxed(&bare.alive) == 0);
}

// --- the barrier: Dekker's handshake with plain stores on one side ---

static atomic_u32 busy;
static atomic_u32 claimed;
static atomic_u32 stop;
static atomic_u32 entered;
static uint64_t owned; // owner in its bracket, claimer after its claim

static void *owner(void *arg)
{
    while (load_relaxed(&stop) == 0) {
        store_relaxed(&busy, 1);
        fence_compiler();
        if (load_relaxed(&claimed) == 0) {
            owned = owned + 1;
            store_relaxed(&entered, load_relaxed(&entered) + 1);
        }
        store_release(&busy, 0); // pairs with load_acquire in claim_many
    }
    return arg;
}

static void claim_many(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        store_relaxed(&claimed, 1);
        barrier_others();
        while (load_acquire(&busy) != 0) { // pairs with store_release in owner
        }
        uint64_t seen = owned;
        for (int turn = 0; turn < 50; turn++) {
            cpu_relax();
            fence_compiler();
            cr_assert(*(volatile uint64_t *)&owned == seen, "the owner is in its bracket");
        }
        store_relaxed(&claimed, 0);
        uint32_t before = load_relaxed(&entered);
        for (int turn = 0; turn < 2000 && load_relaxed(&entered) == before; turn++) {
            cpu_relax();
        }
    }
}

EBB_TEST(thread, barrier_makes_a_claim_safe, .timeout = 60)
{
    pthread_t thread;
    frame_allow_mappings(20);
    cr_assert(pthread_create(&thread, NULL, owner, NULL) == 0);
    while (load_relaxed(&entered) == 0) {
        cpu_relax();
    }
    claim_many(4000);
    // The way without membarrier, where a filter forbids it.
    barrier_restrict();
    claim_many(50);
    store_relaxed(&stop, 1);
    pthread_join(thread, NULL);
    cr_assert(load_relaxed(&entered) > 50);
}
