// SPDX-License-Identifier: MIT
//
// Limiter: knows the limit in force and the cgroup's numbers, sets the page heap's gate, and does
// what limit.c decides.
//
// Model
//   setting  what was asked for: option limit, GOMEMLIMIT, ebb_limit_set. OPTION_LIMIT_AUTO or a
//            number; OPTION_LIMIT_OFF: none.
//   limit    what is in force: the number, or nine tenths of the cgroup's limit.
//   The gate is set in bytes, as limit.c has them: what the tables and the holes come to is the
//   page heap's to count when it asks, since both move between two looks.
//   The place of the cgroup is looked up once, when auto is set. Its usage is read when the heap
//   grows, every 2 ms at most; its limits once a second at most; memory.stat and PSI only by the
//   releaser's thread, once a second at most. A process at rest reads nothing.
//
// Locking
//   reading is a try-flag for what comes from files: who does not get it uses the last numbers.
//   The bucket belongs to the release round.
//
// Flow
//   See limit_int.h.
//
// Go       1.22 mheap.go allocSpan (overage), mgclimit.go; debug.SetMemoryLimit.
// Tests    test/policy/limit_test.c  test/fault/limit_fault.c  test/system/container.py
#include <unistd.h>

#include "base/fatal.h"
#include "base/option.h"
#include "os/clock.h"
#include "ledger/ledger.h"
#include "os/futex.h"
#include "release/limit_int.h"
#include "span/span.h"

#define USAGE_NS (2 * NS_PER_MS) // between two readings of the cgroup's usage
#define FILES_NS NS_PER_S        // of its limits, of memory.stat, of PSI
#define WAKE_NS (10 * NS_PER_MS) // between two calls of the releaser's thread from growth
#define ASSIST_NS (10 * NS_PER_MS)
#define FLUSH_SHARE 10           // flushes by allocations that failed take a tenth of the time
#define FULL_ATTEMPTS 2          // of an allocation that has found no memory
#define YIELD_NS (2 * NS_PER_MS) // how long growth waits for others in a cgroup that is full

static struct limiter {
    atomic_u64 setting;            // (A) as option limit
    atomic_u64 limit_bytes;        // (A) in force, LIMIT_NONE: none
    atomic_u64 group_limit_bytes;  // (A) LIMIT_NONE: nobody looks, or it has none
    atomic_u64 group_usage_bytes;  // (A)
    atomic_u64 group_cache_bytes;  // (A) page cache in it, at the last look by the thread
    atomic_u32 pressure;           // (A)
    atomic_u32 action;             // (A) enum option_limit_action
    atomic_u32 restricted;         // (A) no file may be read any more
    atomic_u32 reading;            // (A) try-flag
    atomic_u32 alert;              // (A) near enough for frees to be told at once
    atomic_u64 usage_read_ns;      // (A) written under reading
    atomic_u64 files_read_ns;      // (A) the same
    atomic_u64 stat_read_ns;       // (A) the same
    atomic_u64 woken_ns;           // (A)
    atomic_u64 flush_at_ns;        // (A) no flush by an allocation that failed before that
    atomic_u64 over_since_ns;      // (A) 0: not stuck over the limit
    atomic_u64 passed_freed_pages; // (A) freed ever when the hard limit was last passed
    atomic_ptr callback;           // (A) ebb_limit_callback; its argument is written first
    atomic_ptr callback_arg;       // (A)
    atomic_u64 assist_count;       // (A)
    atomic_u64 assist_bytes;       // (A)
    atomic_u64 passed_count;       // (A)
    atomic_u64 refused_count;      // (A) allocations that failed because of the limit
    atomic_u64 watch_bytes;        // (A) mapped, from which on watch_hook is called, once
    void (*watch_hook)(void);      // (C)
    void (*abort_hook)(void);      // (C)
    bool group_found;              // (reading)
    uint64_t above_bytes;          // (reading) version 1: a tighter limit further up
    struct cgroup group;           // (reading)
    struct limit_cpu cpu;          // (round)
} limiter = {
    .setting = {OPTION_LIMIT_OFF},
    .limit_bytes = {LIMIT_NONE},
    .group_limit_bytes = {LIMIT_NONE},
    .pressure = {PRESSURE_UNKNOWN},
    .passed_freed_pages = {UINT64_MAX},
    .watch_bytes = {UINT64_MAX},
};

uint64_t limiter_limit_bytes(void)
{
    return load_relaxed(&limiter.limit_bytes);
}

// The counters page tells readers outside.
static void limit_store(uint64_t bytes)
{
    store_relaxed(&limiter.limit_bytes, bytes);
    store_relaxed(&ledger_page_main.limit_bytes, bytes);
}

// --- what files say ---

static bool reading_try(void)
{
    uint32_t expected = 0;
    return cas_acquire(&limiter.reading, &expected, 1); // pairs with reading_end
}

static void reading_end(void)
{
    store_release(&limiter.reading, 0); // pairs with reading_try
}

static bool may_read(void)
{
    return load_relaxed(&limiter.restricted) == 0;
}

static void trace_limit(uint64_t limit_bytes, uint64_t group_bytes)
{
    if (!options_main.releasetrace) {
        return;
    }
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "ebb: limit ");
    if (limit_bytes == LIMIT_NONE) {
        fmt_str(&line, "auto: the cgroup has none\n");
    } else {
        fmt_bytes(&line, limit_bytes);
        fmt_str(&line, ": 0.9 of the cgroup's ");
        fmt_bytes(&line, group_bytes);
        fmt_str(&line, " (version ");
        fmt_u64(&line, (uint64_t)limiter.group.version);
        fmt_str(&line, ", ");
        fmt_str(&line, limiter.group.path);
        fmt_str(&line, ")\n");
    }
    fmt_write(&line, STDERR_FILENO);
}

// Takes new limits of the cgroup. Caller has the flag.
static void group_take(const struct cgroup_memory *memory)
{
    uint64_t group_bytes = min_u64(cgroup_memory_limit(memory), limiter.above_bytes);
    if (group_bytes == load_relaxed(&limiter.group_limit_bytes)) {
        return;
    }
    store_relaxed(&limiter.group_limit_bytes, group_bytes);
    if (load_relaxed(&limiter.setting) == OPTION_LIMIT_AUTO) {
        limit_store(limit_auto(group_bytes));
        trace_limit(limit_auto(group_bytes), group_bytes);
    }
}

// Usage, and the limits once a second. Little stack: this runs inside malloc.
static void group_peek(uint64_t now_ns)
{
    if (!limiter.group_found || !may_read() ||
        now_ns - load_relaxed(&limiter.usage_read_ns) < USAGE_NS || !reading_try()) {
        return;
    }
    struct cgroup_memory memory;
    store_relaxed(&limiter.usage_read_ns, now_ns);
    bool limits = now_ns - load_relaxed(&limiter.files_read_ns) >= FILES_NS;
    if (limits) {
        store_relaxed(&limiter.files_read_ns, now_ns);
    }
    if (cgroup_peek_usage(&limiter.group, &memory)) {
        store_relaxed(&limiter.group_usage_bytes, memory.usage_bytes);
    }
    if (limits) {
        cgroup_peek_limits(&limiter.group, &memory);
        group_take(&memory);
    }
    reading_end();
}

// Everything there is, once a second.
static void group_read(uint64_t now_ns)
{
    bool due = now_ns - load_relaxed(&limiter.stat_read_ns) >= FILES_NS;
    if (!due || !may_read() || !reading_try()) {
        return;
    }
    struct cgroup_memory own;
    struct cgroup_memory all;
    store_relaxed(&limiter.stat_read_ns, now_ns);
    store_relaxed(&limiter.pressure,
                  pressure_read(limiter.group_found ? &limiter.group : NULL, ""));
    if (limiter.group_found && cgroup_memory_read(&limiter.group, &all)) {
        cgroup_peek_limits(&limiter.group, &own);
        bool above = all.limit_bytes < own.limit_bytes;
        limiter.above_bytes = above ? all.limit_bytes : CGROUP_UNLIMITED;
        store_relaxed(&limiter.group_usage_bytes, all.usage_bytes);
        store_relaxed(&limiter.group_cache_bytes, limit_charge(all.cache_bytes, all.shmem_bytes));
        store_relaxed(&limiter.usage_read_ns, now_ns);
        store_relaxed(&limiter.files_read_ns, now_ns);
        group_take(&all);
    }
    reading_end();
}

// --- views and the gate ---

static struct limit_view view_of(const struct release_view *view)
{
    uint64_t usage = load_relaxed(&limiter.group_usage_bytes);
    return (struct limit_view){
        .limit_bytes = load_relaxed(&limiter.limit_bytes),
        .mapped_bytes = view->mapped_bytes,
        .ready_bytes = view->ready_bytes + view->candidate_bytes,
        .rest_ns = view->rest_ns,
        .group_limit_bytes = load_relaxed(&limiter.group_limit_bytes),
        .group_charge_bytes = limit_charge(usage, load_relaxed(&limiter.group_cache_bytes)),
        .pressure = load_relaxed(&limiter.pressure),
    };
}

static bool is_hard(void)
{
    return load_relaxed(&limiter.action) != OPTION_LIMIT_ACTION_SOFT;
}

// A look that began under the last limit must not leave it in the gate: where there is no limit any
// more, nobody would set the gate again. So it is looked after setting, and set once more. The page
// heap's lock orders this with limiter_set, which stores the limit and then comes here too.
static void gate_set(const struct limit_view *view)
{
    struct limit_view limits = *view;
    bool stale = true;
    while (stale) {
        bool hard = is_hard();
        struct limit_gate gate = limit_gate(&limits, hard);
        store_relaxed(&limiter.alert, limit_alert(&limits));
        uint64_t look_bytes = min_u64(gate.look_bytes, load_relaxed(&limiter.watch_bytes));
        pageheap_set_gate(&pageheap_main, look_bytes, gate.hard_bytes);
        uint64_t limit_bytes = load_relaxed(&limiter.limit_bytes);
        uint64_t group_bytes = load_relaxed(&limiter.group_limit_bytes);
        stale = limit_bytes != limits.limit_bytes || group_bytes != limits.group_limit_bytes ||
                hard != is_hard();
        limits.limit_bytes = limit_bytes;
        limits.group_limit_bytes = group_bytes;
    }
}

static void gate_renew(void)
{
    struct release_view view;
    release_view_read(&view);
    struct limit_view limits = view_of(&view);
    gate_set(&limits);
}

bool limiter_active(void)
{
    return load_relaxed(&limiter.setting) != OPTION_LIMIT_OFF;
}

bool limiter_alert(void)
{
    return load_relaxed(&limiter.alert) != 0;
}

uint64_t limiter_ring_bytes(void)
{
    uint64_t tightest =
        min_u64(load_relaxed(&limiter.limit_bytes), load_relaxed(&limiter.group_limit_bytes));
    return tightest == LIMIT_NONE ? UINT64_MAX : max_u64(tightest / 32, MIB);
}

// --- in the releaser's look ---

bool limiter_begin(void)
{
    if (!limiter_active()) {
        return false;
    }
    uint64_t now_ns = clock_now_ns();
    group_read(now_ns);
    group_peek(now_ns);
    struct release_view view;
    release_view_read(&view);
    struct limit_view limits = view_of(&view);
    return limit_plan(&limits).flush && limit_cpu_may_spend(&limiter.cpu, now_ns);
}

void limiter_harden(const struct release_view *view, struct release_plan *plan)
{
    if (!limiter_active()) {
        return;
    }
    struct limit_view limits = view_of(view);
    struct limit_plan limit = limit_plan(&limits);
    limit_harden(plan, &limit);
}

bool limiter_may_spend(uint64_t now_ns)
{
    return limit_cpu_may_spend(&limiter.cpu, now_ns);
}

void limiter_spend(uint64_t now_ns, uint64_t spent_ns)
{
    limit_cpu_spend(&limiter.cpu, now_ns, spent_ns);
}

uint64_t limiter_ready_ns(uint64_t now_ns)
{
    return limit_cpu_ready_ns(&limiter.cpu, now_ns);
}

// Ends the program that has been over its limit for too long.
static bool stuck_check(const struct release_view *view, const struct limit_view *limits)
{
    uint64_t since_ns = load_relaxed(&limiter.over_since_ns);
    uint64_t after_ns = (uint64_t)options_main.limit_failfast * NS_PER_S;
    bool overdue = limit_overdue(&since_ns, view->now_ns, limits, after_ns);
    store_relaxed(&limiter.over_since_ns, since_ns);
    if (overdue) {
        char buf[FMT_LINE_BYTES];
        struct fmt line;
        fmt_init(&line, buf, sizeof(buf));
        fmt_u64(&line, (view->now_ns - since_ns) / NS_PER_S);
        fmt_str(&line, " s over the limit of ");
        fmt_bytes(&line, limits->limit_bytes);
        fmt_str(&line, " with nothing left to release: live ");
        fmt_bytes(&line, view->used_bytes);
        fmt_str(&line, " of pages in use, retained ");
        fmt_bytes(&line, view->mapped_bytes);
        fmt_str(&line, "; limit_failfast=");
        fmt_u64(&line, (uint64_t)options_main.limit_failfast);
        fmt_str(&line, " ends the program");
        fatal_user(&line);
    }
    return since_ns != 0 && after_ns != 0;
}

void limiter_gate(const struct release_view *view)
{
    if (limiter_active()) {
        struct limit_view limits = view_of(view);
        gate_set(&limits);
    }
}

bool limiter_end(const struct release_view *view)
{
    if (!limiter_active()) {
        return false;
    }
    struct limit_view limits = view_of(view);
    gate_set(&limits);
    return stuck_check(view, &limits);
}

// --- inside an allocation that grows the heap ---

// In a cgroup that is full the others may be about to give back: growing waits a moment for them.
static void yield_if_full(const struct limit_view *limits)
{
    if (limit_full(limits)) {
        atomic_u32 nobody = {0};
        futex_wait(&nobody, 0, YIELD_NS);
    }
}

// Tells whoever watches the heap's size that it has got there.
static void watch_look(uint64_t mapped_bytes)
{
    uint64_t watch_bytes = load_relaxed(&limiter.watch_bytes);
    // Of several threads one tells; pairs with itself.
    if (mapped_bytes >= watch_bytes &&
        cas_acq_rel(&limiter.watch_bytes, &watch_bytes, UINT64_MAX)) {
        limiter.watch_hook();
    }
}

static void limiter_grown(void)
{
    if (!limiter_active() || lock_am_freezer()) {
        return;
    }
    struct release_view view;
    uint64_t now_ns = clock_now_ns();
    group_peek(now_ns);
    release_view_read(&view);
    struct limit_view limits = view_of(&view);
    struct limit_plan plan = limit_plan(&limits);
    uint64_t assist_bytes = limit_assist(&limits);
    if (assist_bytes != 0) {
        uint64_t released = 0;
        releaser_assist_limit(assist_bytes, ASSIST_NS, plan.why, &released);
        add_relaxed(&limiter.assist_count, 1);
        add_relaxed(&limiter.assist_bytes, released);
        release_view_read(&view);
        limits = view_of(&view);
    }
    bool worth = plan.level >= LIMIT_GOAL && (plan.bytes != 0 || plan.flush);
    if (worth && now_ns - load_relaxed(&limiter.woken_ns) >= WAKE_NS) {
        store_relaxed(&limiter.woken_ns, now_ns);
        releaser_wake();
    }
    watch_look(view.mapped_bytes);
    yield_if_full(&limits);
    if (!releaser_may_start()) {
        stuck_check(&view, &limits); // inside a bracket, for want of anybody who is not
    }
    gate_set(&limits);
}

// --- after an allocation that found no memory ---

static void abort_over_limit(const struct release_view *view, uint64_t limit_bytes)
{
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    if (limiter.abort_hook != NULL) {
        limiter.abort_hook();
    }
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "the limit of ");
    fmt_bytes(&line, limit_bytes);
    fmt_str(&line, " is reached: ");
    fmt_bytes(&line, view->used_bytes);
    fmt_str(&line, " in use, ");
    fmt_bytes(&line, view->mapped_bytes);
    fmt_str(&line, " retained; limit_action=abort ends the program");
    fatal_user(&line);
}

// True if the program's function was called, so that it is worth another attempt.
static bool callback_call(void)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    void *fn = load_acquire(&limiter.callback); // pairs with store_release in limiter_set_callback
    uint64_t freed_then = load_relaxed(&limiter.passed_freed_pages);
    uint64_t limit_pages = load_relaxed(&limiter.limit_bytes) >> PAGE_SHIFT;
    if (fn == NULL || !limit_passing(stats.freed_total_pages, freed_then, limit_pages) ||
        !cas_acq_rel(&limiter.passed_freed_pages, &freed_then, stats.freed_total_pages)) {
        return false; // of several threads at the limit one calls; pairs with itself
    }
    add_relaxed(&limiter.passed_count, 1);
    ((void (*)(void *))fn)(load_relaxed(&limiter.callback_arg));
    return true;
}

// Makes room of what caches hold: of this thread's own always, of the others' as far as the time
// allows, since a program may stay at its limit and try again and again.
static void caches_flush(void)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t flush_at_ns = load_relaxed(&limiter.flush_at_ns);
    cache_flush_self();
    // Of several threads one does it; pairs with itself.
    if (now_ns >= flush_at_ns && cas_acq_rel(&limiter.flush_at_ns, &flush_at_ns, UINT64_MAX)) {
        releaser_flush_all();
        uint64_t end_ns = clock_now_ns();
        store_relaxed(&limiter.flush_at_ns, end_ns + (end_ns - now_ns) * (FLUSH_SHARE - 1));
    }
}

// heap_full's hook: attempt 0, 1, ... of one allocation. The first time the caches are flushed, the
// second time limit_action is done. Where the gate would not refuse, others have made room, or it
// was the machine that had no more: then it is tried again, and the limit has no part in it.
static bool limiter_full(unsigned attempt, size_t page_count)
{
    uint64_t limit_bytes = load_relaxed(&limiter.limit_bytes);
    bool limited = is_hard() && limit_bytes != LIMIT_NONE;
    if (lock_am_freezer()) {
        return false;
    }
    if (!pageheap_gate_refuses(&pageheap_main, page_count)) {
        return limited && attempt < FULL_ATTEMPTS;
    }
    if (!limited) {
        gate_renew(); // the limit has gone this moment
        return attempt < FULL_ATTEMPTS;
    }
    if (attempt == 0) {
        caches_flush();
        return true;
    }
    struct release_view view;
    switch (load_relaxed(&limiter.action)) {
    case OPTION_LIMIT_ACTION_ABORT:
        release_view_read(&view);
        abort_over_limit(&view, limit_bytes);
        break;
    case OPTION_LIMIT_ACTION_CALLBACK:
        if (attempt < FULL_ATTEMPTS && callback_call()) {
            cache_flush_self(); // what it has freed
            return true;
        }
        break;
    default:
        break;
    }
    add_relaxed(&limiter.refused_count, 1);
    return false;
}

// --- settings ---

// Looks the cgroup up and reads it for the first time: 20 KiB of stack.
static void group_find(void)
{
    while (!reading_try()) {
        cpu_relax();
    }
    limiter.group_found = limiter.group_found || (may_read() && cgroup_find("", &limiter.group));
    limiter.above_bytes = CGROUP_UNLIMITED;
    store_relaxed(&limiter.stat_read_ns, 0);
    store_relaxed(&limiter.group_limit_bytes, LIMIT_NONE);
    reading_end();
    group_read(clock_now_ns());
}

void limiter_set(uint64_t setting)
{
    store_relaxed(&limiter.setting, setting);
    if (setting == OPTION_LIMIT_AUTO) {
        limit_store(LIMIT_NONE);
        group_find();
    } else {
        store_relaxed(&limiter.group_limit_bytes, LIMIT_NONE);
        limit_store(setting == OPTION_LIMIT_OFF ? LIMIT_NONE : setting);
    }
    store_relaxed(&limiter.over_since_ns, 0);
    store_relaxed(&limiter.passed_freed_pages, UINT64_MAX);
    gate_renew();
}

void limiter_set_callback(void (*fn)(void *arg), void *arg)
{
    store_relaxed(&limiter.callback_arg, arg);
    store_release(&limiter.callback, (void *)fn); // pairs with load_acquire in callback_call
    store_relaxed(&limiter.action,
                  fn != NULL ? OPTION_LIMIT_ACTION_CALLBACK : OPTION_LIMIT_ACTION_SOFT);
    store_relaxed(&limiter.passed_freed_pages, UINT64_MAX);
    gate_renew();
}

void limiter_set_abort_hook(void (*hook)(void))
{
    limiter.abort_hook = hook;
}

void limiter_report(struct limiter_report *out)
{
    struct release_view view;
    release_view_read(&view);
    struct limit_view limits = view_of(&view);
    *out = (struct limiter_report){
        .limit_bytes = limits.limit_bytes,
        .automatic = load_relaxed(&limiter.setting) == OPTION_LIMIT_AUTO,
        .action = load_relaxed(&limiter.action),
        .used_bytes = view.used_bytes,
        .mapped_bytes = view.mapped_bytes,
        .group_limit_bytes = limits.group_limit_bytes,
        .group_charge_bytes = limits.group_charge_bytes,
        .assist_count = load_relaxed(&limiter.assist_count),
        .assist_bytes = load_relaxed(&limiter.assist_bytes),
        .passed_count = load_relaxed(&limiter.passed_count),
        .refused_count = load_relaxed(&limiter.refused_count),
    };
}

void limiter_restrict(void)
{
    if (may_read() && load_relaxed(&limiter.setting) == OPTION_LIMIT_AUTO) {
        store_relaxed(&limiter.stat_read_ns, 0);
        group_read(clock_now_ns());
    }
    store_relaxed(&limiter.restricted, 1);
}

void limiter_fork_child(void)
{
    store_relaxed(&limiter.reading, 0); // whoever held it is not in the child
    store_relaxed(&limiter.over_since_ns, 0);
    store_relaxed(&limiter.flush_at_ns, 0); // nor whoever was flushing
}

void limiter_set_watch_hook(void (*hook)(void))
{
    limiter.watch_hook = hook;
}

void limiter_set_watch(uint64_t mapped_bytes)
{
    store_relaxed(&limiter.watch_bytes, mapped_bytes);
    if (limiter_active()) {
        gate_renew();
    }
}

void limiter_init(void)
{
    store_relaxed(&limiter.action, (uint32_t)options_main.limit_action);
    pageheap_set_gate_hook(&pageheap_main, limiter_grown);
    heap_set_full_hook(&heap_main, limiter_full);
    if (options_main.limit != OPTION_LIMIT_OFF) {
        limiter_set(options_main.limit); // otherwise the gate is open as it is
    }
}
