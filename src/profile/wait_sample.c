// SPDX-License-Identifier: MIT
//
// Wait samples: the table of stacks, the lines before locks, and the kinds.
//
// Locking
//   waits.lock: stacks and their sums. line->lock: one line.
//
// Go  1.19 mprof.go blockevent, mutexevent, saveblockevent.
#include "profile/wait_sample.h"

#include <string.h>

#include "base/check.h"
#include "base/rand.h"
#include "os/clock.h"
#include "os/lock.h"
#include "profile/profile.h"

#define TABLE_SLOTS 1024

// A program that makes stacks without end stops here: 8 MiB or so of our own memory.
#define STACK_COUNT_MAX ((size_t)1 << 14)

// What may be added while memory for a copy is being found.
#define COPY_ROOM 256

enum wait_event {
    EVENT_BLOCK,
    EVENT_MUTEX,
    EVENT_THREAD,
    EVENT_COUNT,
};

struct wait_stack {
    struct wait_stack *chain;
    uint64_t hash;
    enum wait_event event;
    enum wait_what what;
    double count;      // (L) of events, estimated
    uint64_t delay_ns; // (L) estimated
    uint64_t kept;     // (L) events that were sampled
    uint32_t depth;
    uintptr_t stack[]; // leaf first
};

struct line {
    struct lock lock;
    uint32_t count;    // (L) of those who wait
    atomic_u64 object; // written under lock, read without; 0: nobody waits
    uint64_t since_ns; // (L) up to when waited_ns is right
    uint64_t waited_ns;
};

static struct {
    struct lock lock;
    struct meta *meta;             // (C)
    void (*on)(bool watch);        // (C)
    atomic_u64 block_rate_ns;      // (A)
    atomic_u64 mutex_fraction;     // (A)
    atomic_ptr lines;              // (A) of struct line, NULL: never used
    atomic_u64 unseen_count;       // (A) waits whose line was another lock's
    struct wait_stack **stacks;    // (L) by hash
    size_t stack_count;            // (L)
    uint64_t dropped_count;        // (L) for lack of memory
    uint64_t records[EVENT_COUNT]; // (L) stacks with something in them
    uint64_t thread_count;         // (L) made
} waits = {.lock = LOCK_INIT(PROFILE)};

// The thread is in here: a signal handler that comes in between must not wait for a lock it has.
static _Thread_local uint32_t busy;
static _Thread_local uint64_t random_state;

void wait_sample_init(struct meta *meta)
{
    waits.meta = meta;
}

// --- chance ---

bool wait_weigh_block(uint64_t random, uint64_t rate_ns, uint64_t delay_ns,
                      struct wait_weight *weight)
{
    if (rate_ns == 0) {
        return false;
    }
    delay_ns = max_u64(delay_ns, 1);
    if (delay_ns >= rate_ns) {
        *weight = (struct wait_weight){1, delay_ns};
        return true;
    }
    if ((uint64_t)(((unsigned __int128)random * rate_ns) >> 64) >= delay_ns) {
        return false;
    }
    *weight = (struct wait_weight){(double)rate_ns / (double)delay_ns, rate_ns};
    return true;
}

bool wait_weigh_mutex(uint64_t random, uint64_t fraction, uint64_t delay_ns,
                      struct wait_weight *weight)
{
    if (fraction == 0 || (uint64_t)(((unsigned __int128)random * fraction) >> 64) != 0) {
        return false;
    }
    *weight = (struct wait_weight){(double)fraction, fraction * delay_ns};
    return true;
}

static uint64_t random_bits(void)
{
    if (random_state == 0) {
        random_state = clock_now_ns() ^ (uintptr_t)&random_state;
    }
    return rand_splitmix64(&random_state);
}

// --- stacks ---

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

// The record of a stack, found or made; NULL without memory.
static struct wait_stack *stack_of(enum wait_event event, enum wait_what what,
                                   const uintptr_t *stack, uint32_t depth)
{
    uint64_t hash = mix(mix(depth, event), what);
    for (uint32_t i = 0; i < depth; i++) {
        hash = mix(hash, stack[i]);
    }
    if (waits.meta == NULL) {
        return NULL;
    }
    if (waits.stacks == NULL) {
        waits.stacks = meta_alloc(waits.meta, TABLE_SLOTS * sizeof(*waits.stacks), META_PROFILE);
        if (waits.stacks == NULL) {
            return NULL;
        }
    }
    struct wait_stack **slot = &waits.stacks[hash & (TABLE_SLOTS - 1)];
    size_t stack_bytes = depth * sizeof(stack[0]);
    for (struct wait_stack *found = *slot; found != NULL; found = found->chain) {
        if (found->hash == hash && found->depth == depth && found->event == event &&
            found->what == what && memcmp(found->stack, stack, stack_bytes) == 0) {
            return found;
        }
    }
    if (waits.stack_count >= STACK_COUNT_MAX) {
        return NULL;
    }
    struct wait_stack *made =
        meta_alloc(waits.meta, sizeof(struct wait_stack) + stack_bytes, META_PROFILE);
    if (made == NULL) {
        return NULL;
    }
    made->hash = hash;
    made->event = event;
    made->what = what;
    made->depth = depth;
    memcpy(made->stack, stack, stack_bytes);
    made->chain = *slot;
    *slot = made;
    waits.stack_count++;
    return made;
}

static void record(enum wait_event event, enum wait_what what, const uintptr_t *stack,
                   uint32_t depth, const struct wait_weight *weight)
{
    lock_acquire(&waits.lock);
    struct wait_stack *to = stack_of(event, what, stack, depth);
    if (to != NULL) {
        waits.records[event] += to->kept == 0;
        to->kept++;
        to->count += weight->count;
        to->delay_ns += weight->delay_ns;
    } else {
        waits.dropped_count++;
    }
    waits.thread_count += event == EVENT_THREAD;
    lock_release(&waits.lock);
}

// --- lines ---

static struct line *line_of(uintptr_t object)
{
    struct line *lines = load_acquire(&waits.lines); // pairs with store_release in lines_make
    return lines == NULL ? NULL : &lines[mix(0, object) >> 16 & (WAIT_LINE_COUNT - 1)];
}

static bool lines_make(void)
{
    if (load_relaxed(&waits.lines) != NULL) {
        return true;
    }
    if (waits.meta == NULL) {
        return false;
    }
    struct line *lines = meta_reserve(waits.meta, WAIT_LINE_COUNT * sizeof(*lines), META_PROFILE);
    if (lines == NULL) {
        return false;
    }
    for (size_t i = 0; i < WAIT_LINE_COUNT; i++) {
        lock_init(&lines[i].lock, LOCKRANK_PROFILE);
    }
    void *none = NULL;
    cas_release(&waits.lines, &none, (void *)lines); // pairs with load_acquire in line_of
    return true;
}

// Up to now all who wait have waited. Clocks of two processors may differ by a little.
static void line_advance(struct line *line, uint64_t now_ns)
{
    if (now_ns > line->since_ns) {
        line->waited_ns += line->count * (now_ns - line->since_ns);
        line->since_ns = now_ns;
    }
}

static bool line_join(uintptr_t object, uint64_t now_ns)
{
    struct line *line = line_of(object);
    if (line == NULL) {
        return false;
    }
    lock_acquire(&line->lock);
    if (load_relaxed(&line->object) == 0) {
        line->waited_ns = 0;
        line->since_ns = now_ns;
        store_relaxed(&line->object, object);
    }
    bool ours = load_relaxed(&line->object) == object;
    if (ours) {
        line_advance(line, now_ns);
        line->count++;
    }
    lock_release(&line->lock);
    if (!ours) {
        add_relaxed(&waits.unseen_count, 1);
    }
    return ours;
}

static void line_leave(uintptr_t object, uint64_t now_ns, bool acquired)
{
    struct line *line = line_of(object);
    lock_acquire(&line->lock);
    line_advance(line, now_ns);
    if (acquired) {
        line->waited_ns = 0; // since it was unlocked: the time it takes to wake, and nobody's fault
    }
    if (--line->count == 0) {
        store_relaxed(&line->object, 0);
    }
    lock_release(&line->lock);
}

// --- what is called around locks ---

void wait_begin(struct wait *wait, const void *object, enum wait_what what)
{
    wait->object = (uintptr_t)object;
    wait->what = what;
    wait->depth = 0;
    wait->lined = false;
    if (busy != 0) {
        return;
    }
    busy = 1;
    fence_compiler();
    wait->began_ns = clock_now_ns();
    if (load_relaxed(&waits.mutex_fraction) != 0) {
        wait->lined = line_join(wait->object, wait->began_ns);
    }
    if (load_relaxed(&waits.block_rate_ns) != 0) {
        wait->depth = unwind_stack(wait->stack, WAIT_DEPTH_MAX);
    }
    fence_compiler();
    busy = 0;
}

void wait_end(struct wait *wait, bool acquired, bool counts)
{
    if (!wait->lined && wait->depth == 0) {
        return;
    }
    uint32_t was = busy;
    busy = 1;
    fence_compiler();
    uint64_t now_ns = clock_now_ns();
    if (wait->lined) {
        line_leave(wait->object, now_ns, acquired);
    }
    struct wait_weight weight;
    uint64_t rate_ns = load_relaxed(&waits.block_rate_ns);
    if (counts && wait->depth != 0 &&
        wait_weigh_block(random_bits(), rate_ns, now_ns - wait->began_ns, &weight)) {
        record(EVENT_BLOCK, wait->what, wait->stack, wait->depth, &weight);
    }
    fence_compiler();
    busy = was;
}

uint64_t wait_unlocking(const void *object)
{
    struct line *line = line_of((uintptr_t)object);
    if (line == NULL || load_relaxed(&line->object) != (uintptr_t)object || busy != 0) {
        return 0;
    }
    uint64_t waited_ns = 0;
    busy = 1;
    fence_compiler();
    uint64_t now_ns = clock_now_ns();
    lock_acquire(&line->lock);
    if (load_relaxed(&line->object) == (uintptr_t)object) {
        line_advance(line, now_ns);
        waited_ns = line->waited_ns;
        line->waited_ns = 0;
    }
    lock_release(&line->lock);
    fence_compiler();
    busy = 0;
    return waited_ns;
}

// Records one event by the stack of the calling thread.
static void record_here(enum wait_event event, enum wait_what what,
                        const struct wait_weight *weight)
{
    uintptr_t stack[WAIT_DEPTH_MAX];
    busy = 1;
    fence_compiler();
    uint32_t depth = unwind_stack(stack, WAIT_DEPTH_MAX);
    record(event, what, stack, depth, weight);
    fence_compiler();
    busy = 0;
}

void wait_unlocked(uint64_t delay_ns)
{
    struct wait_weight weight;
    uint64_t fraction = load_relaxed(&waits.mutex_fraction);
    if (busy == 0 && wait_weigh_mutex(random_bits(), fraction, delay_ns, &weight)) {
        record_here(EVENT_MUTEX, WAIT_MUTEX, &weight);
    }
}

uint64_t wait_now(void)
{
    return clock_now_ns();
}

void wait_over(uint64_t began_ns, enum wait_what what)
{
    struct wait_weight weight;
    uint64_t rate_ns = load_relaxed(&waits.block_rate_ns);
    if (busy == 0 && rate_ns != 0 &&
        wait_weigh_block(random_bits(), rate_ns, clock_now_ns() - began_ns, &weight)) {
        record_here(EVENT_BLOCK, what, &weight);
    }
}

void wait_thread_made(void)
{
    if (busy == 0) {
        record_here(EVENT_THREAD, WAIT_MUTEX, &(struct wait_weight){1, 0});
    }
}

// --- fork ---

void wait_sample_freeze(void)
{
    lock_freeze(&waits.lock);
}

void wait_sample_thaw(void)
{
    lock_thaw(&waits.lock);
}

void wait_sample_fork_child(void)
{
    struct line *lines = load_relaxed(&waits.lines);
    for (size_t i = 0; lines != NULL && i < WAIT_LINE_COUNT; i++) {
        // Others may have been in the middle of one.
        lock_init(&lines[i].lock, LOCKRANK_PROFILE);
        lines[i].count = 0;
        store_relaxed(&lines[i].object, 0);
    }
    lock_acquire(&waits.lock);
    for (size_t i = 0; waits.stacks != NULL && i < TABLE_SLOTS; i++) {
        for (struct wait_stack *s = waits.stacks[i]; s != NULL; s = s->chain) {
            s->count = 0;
            s->delay_ns = 0;
            s->kept = 0;
        }
    }
    memset(waits.records, 0, sizeof(waits.records));
    waits.thread_count = 0;
    waits.dropped_count = 0;
    lock_release(&waits.lock);
    store_relaxed(&waits.unseen_count, 0);
}

// --- the kinds ---

struct counted {
    const struct wait_stack *stack; // constant but for the sums
    double count;
    uint64_t delay_ns;
};

// Copies what is of one event, and returns how many there are, of which up to max were copied.
static size_t stacks_copy(enum wait_event event, struct counted *out, size_t max)
{
    size_t count = 0;
    lock_acquire(&waits.lock);
    for (size_t i = 0; waits.stacks != NULL && i < TABLE_SLOTS; i++) {
        for (const struct wait_stack *s = waits.stacks[i]; s != NULL; s = s->chain) {
            if (s->event != event || s->kept == 0) {
                continue;
            }
            if (count < max) {
                out[count] = (struct counted){s, s->count, s->delay_ns};
            }
            count++;
        }
    }
    lock_release(&waits.lock);
    return count;
}

static uint64_t record_count(enum wait_event event)
{
    lock_acquire(&waits.lock);
    uint64_t count = waits.records[event];
    lock_release(&waits.lock);
    return count;
}

static void comment_number(struct profile_set *set, const char *text, uint64_t number)
{
    char buf[128];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, text);
    fmt_u64(&line, number);
    profile_set_comment(set, buf);
}

static void comment_lost(struct profile_set *set)
{
    lock_acquire(&waits.lock);
    uint64_t dropped = waits.dropped_count;
    lock_release(&waits.lock);
    if (dropped != 0) {
        comment_number(set, "events not recorded for lack of memory: ", dropped);
    }
}

static bool events_collect(struct profile_set *set, enum wait_event event, const char **why)
{
    static const char *const what_text[] = {
        [WAIT_MUTEX] = "mutex", [WAIT_RWLOCK] = "rwlock", [WAIT_COND] = "cond"};
    set->period = 1;
    size_t max = record_count(event) + COPY_ROOM;
    struct counted *copy = region_alloc(&set->region, max * sizeof(*copy));
    if (copy == NULL) {
        *why = "not enough memory for a copy of the stacks";
        return false;
    }
    comment_lost(set);
    size_t count = min_size(stacks_copy(event, copy, max), max);
    for (size_t i = 0; i < count; i++) {
        struct profile_sample sample = {
            .stack = copy[i].stack->stack,
            .depth = copy[i].stack->depth,
            .values = {(int64_t)copy[i].count, (int64_t)copy[i].delay_ns},
            .labels = {{.key = "wait", .text = what_text[copy[i].stack->what]}},
            .label_count = event == EVENT_BLOCK,
        };
        if (!profile_set_add(set, &sample)) {
            break; // set->cut says so
        }
    }
    return true;
}

static bool block_collect(struct profile_set *set, const char **why)
{
    uint64_t rate = load_relaxed(&waits.block_rate_ns);
    comment_number(set, "blockprofile_rate in ns: ", rate);
    if (rate == 0) {
        profile_set_comment(set, "waits are not recorded; EBB=blockprofile_rate=NS at the start of "
                                 "the program turns it on");
    }
    return events_collect(set, EVENT_BLOCK, why);
}

static bool mutex_collect(struct profile_set *set, const char **why)
{
    uint64_t fraction = load_relaxed(&waits.mutex_fraction);
    comment_number(set, "mutexprofile_fraction: ", fraction);
    if (fraction == 0) {
        profile_set_comment(set, "waits are not recorded; EBB=mutexprofile_fraction=N at the start "
                                 "of the program turns it on");
    }
    uint64_t unseen = load_relaxed(&waits.unseen_count);
    if (unseen != 0) {
        comment_number(set, "waits not seen, too many locks at a time: ", unseen);
    }
    return events_collect(set, EVENT_MUTEX, why);
}

// As in Go, the first thread, which nobody made, is there without a stack.
static bool thread_collect(struct profile_set *set, const char **why)
{
    struct profile_sample first = {.values = {1}};
    profile_set_add(set, &first);
    return events_collect(set, EVENT_THREAD, why);
}

static uint64_t block_count(void)
{
    return record_count(EVENT_BLOCK);
}

static uint64_t mutex_count(void)
{
    return record_count(EVENT_MUTEX);
}

static uint64_t thread_count(void)
{
    lock_acquire(&waits.lock);
    uint64_t count = waits.thread_count;
    lock_release(&waits.lock);
    return 1 + count;
}

#define WAIT_COLUMNS                                                                               \
    .types = {{"contentions", "count"}, {"delay", "nanoseconds"}}, .type_count = 2,                \
    .period_type = {"contentions", "count"}, .text = PROFILE_TEXT_CONTENTION, .delta = true

static const struct profile_kind kind_block = {
    .name = "block",
    .help = "Where threads wait for locks and conditions; off unless blockprofile_rate is set.",
    WAIT_COLUMNS,
    .collect = block_collect,
    .count = block_count,
};

static const struct profile_kind kind_mutex = {
    .name = "mutex",
    .help = "Who holds the locks others wait for; off unless mutexprofile_fraction is set.",
    WAIT_COLUMNS,
    .collect = mutex_collect,
    .count = mutex_count,
};

static const struct profile_kind kind_thread = {
    .name = "threadcreate",
    .help = "Threads ever made, by where.",
    .types = {{"threadcreate", "count"}},
    .type_count = 1,
    .period_type = {"threadcreate", "count"},
    .text = PROFILE_TEXT_COUNT,
    .delta = true,
    .collect = thread_collect,
    .count = thread_count,
};

void wait_sample_start(void (*on)(bool watch))
{
    waits.on = on;
    profile_add_kind(&kind_block);
    profile_add_kind(&kind_mutex);
    profile_add_kind(&kind_thread);
}

static bool rate_set(atomic_u64 *rate, uint64_t value)
{
    if (waits.on == NULL || (value != 0 && !lines_make())) {
        return false;
    }
    store_relaxed(rate, value);
    waits.on(load_relaxed(&waits.block_rate_ns) != 0 || load_relaxed(&waits.mutex_fraction) != 0);
    return true;
}

bool wait_sample_set_block(uint64_t rate_ns)
{
    return rate_set(&waits.block_rate_ns, rate_ns);
}

bool wait_sample_set_mutex(uint64_t fraction)
{
    return rate_set(&waits.mutex_fraction, fraction);
}
