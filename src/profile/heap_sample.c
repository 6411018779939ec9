// SPDX-License-Identifier: MIT
//
// Heap samples: the table of stacks and the table of sampled blocks in use.
//
// Locking
//   samples.lock: the public functions take it, the static ones run under it.
//
// Go  1.19 mprof.go stkbucket, setprofilebucket.
#include "profile/heap_sample.h"

#include <string.h>

#include "os/clock.h"
#include "os/lock.h"
#include "profile/usdt.h"

// Tables begin small and double; what they leave behind is never more than what they have.
#define TABLE_MIN_COUNT ((size_t)256)

// A program that makes stacks without end (deep recursion, generated code) stops here: 32 MiB or
// so of our own memory.
#define STACK_COUNT_MAX ((size_t)1 << 16)

static struct {
    struct lock lock;
    struct meta *meta;           // (C)
    struct heap_stack **stacks;  // (L) by hash
    size_t stack_slots;          // (L) a power of two
    size_t stack_count;          // (L)
    struct heap_sample **blocks; // (L) by address
    size_t block_slots;          // (L)
    size_t live_count;           // (L)
    struct heap_sample *unused;  // (L)
    uint64_t dropped_count;      // (L)
} samples = {.lock = LOCK_INIT(PROFILE)};

void heap_sample_init(struct meta *meta)
{
    samples.meta = meta;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

static size_t block_slot(uintptr_t addr)
{
    return mix(0, addr) & (samples.block_slots - 1);
}

static bool stacks_grow(void)
{
    size_t slots = samples.stack_slots == 0 ? TABLE_MIN_COUNT : samples.stack_slots * 2;
    struct heap_stack **table = meta_alloc(samples.meta, slots * sizeof(*table), META_PROFILE);
    if (table == NULL) {
        return false;
    }
    for (size_t i = 0; i < samples.stack_slots; i++) {
        struct heap_stack *stack = samples.stacks[i];
        while (stack != NULL) {
            struct heap_stack *next = stack->chain;
            stack->chain = table[stack->hash & (slots - 1)];
            table[stack->hash & (slots - 1)] = stack;
            stack = next;
        }
    }
    samples.stacks = table;
    samples.stack_slots = slots;
    return true;
}

static bool blocks_grow(void)
{
    size_t before = samples.block_slots;
    size_t slots = before == 0 ? TABLE_MIN_COUNT : before * 2;
    struct heap_sample **table = meta_alloc(samples.meta, slots * sizeof(*table), META_PROFILE);
    if (table == NULL) {
        return false;
    }
    struct heap_sample **old = samples.blocks;
    samples.blocks = table;
    samples.block_slots = slots;
    for (size_t i = 0; i < before; i++) {
        struct heap_sample *sample = old[i];
        while (sample != NULL) {
            struct heap_sample *next = sample->chain;
            size_t slot = block_slot(sample->addr);
            sample->chain = table[slot];
            table[slot] = sample;
            sample = next;
        }
    }
    return true;
}

// The record of a call's stack, found or made; NULL without memory.
static struct heap_stack *stack_of(const struct heap_call *call)
{
    uint64_t hash = mix(mix(call->depth, call->block_bytes), call->interval_bytes);
    hash = mix(hash, (uintptr_t)call->labels);
    for (uint32_t i = 0; i < call->depth; i++) {
        hash = mix(hash, call->stack[i]);
    }
    size_t stack_bytes = call->depth * sizeof(call->stack[0]);
    if (samples.stack_slots != 0) {
        struct heap_stack *found = samples.stacks[hash & (samples.stack_slots - 1)];
        for (; found != NULL; found = found->chain) {
            if (found->hash == hash && found->depth == call->depth &&
                found->block_bytes == call->block_bytes &&
                found->interval_bytes == call->interval_bytes && found->labels == call->labels &&
                memcmp(found->stack, call->stack, stack_bytes) == 0) {
                return found;
            }
        }
    }
    if (samples.stack_count >= STACK_COUNT_MAX ||
        (samples.stack_count >= samples.stack_slots && !stacks_grow())) {
        return NULL;
    }
    struct heap_stack *made =
        meta_alloc(samples.meta, sizeof(struct heap_stack) + stack_bytes, META_PROFILE);
    if (made == NULL) {
        return NULL;
    }
    made->hash = hash;
    made->block_bytes = call->block_bytes;
    made->interval_bytes = call->interval_bytes;
    made->labels = call->labels;
    made->depth = call->depth;
    memcpy(made->stack, call->stack, stack_bytes);
    made->chain = samples.stacks[hash & (samples.stack_slots - 1)];
    samples.stacks[hash & (samples.stack_slots - 1)] = made;
    samples.stack_count++;
    return made;
}

// The record of the same stack for blocks of another size.
static struct heap_stack *stack_resized(const struct heap_stack *stack, uint64_t block_bytes)
{
    struct heap_call call = {
        .depth = stack->depth,
        .interval_bytes = stack->interval_bytes,
        .block_bytes = block_bytes,
        .labels = stack->labels,
    };
    memcpy(call.stack, stack->stack, stack->depth * sizeof(stack->stack[0]));
    return stack_of(&call);
}

// Room for one sample more: NULL without memory.
static struct heap_sample *sample_new(void)
{
    if (samples.live_count >= samples.block_slots && !blocks_grow()) {
        return NULL;
    }
    if (samples.unused == NULL) {
        // meta memory comes in units of 64 bytes: several at once leave nothing over.
        size_t count = 64;
        struct heap_sample *made = meta_alloc(samples.meta, count * sizeof(*made), META_PROFILE);
        if (made == NULL) {
            return NULL;
        }
        for (size_t i = 0; i < count; i++) {
            made[i].chain = samples.unused;
            samples.unused = &made[i];
        }
    }
    struct heap_sample *sample = samples.unused;
    samples.unused = sample->chain;
    return sample;
}

static void sample_link(struct heap_sample *sample)
{
    size_t slot = block_slot(sample->addr);
    sample->chain = samples.blocks[slot];
    samples.blocks[slot] = sample;
    samples.live_count++;
}

// Takes the sample of addr out of the table; NULL: there is none.
static struct heap_sample *sample_unlink(uintptr_t addr)
{
    if (samples.live_count == 0) {
        return NULL;
    }
    struct heap_sample **link = &samples.blocks[block_slot(addr)];
    while (*link != NULL && (*link)->addr != addr) {
        link = &(*link)->chain;
    }
    struct heap_sample *sample = *link;
    if (sample != NULL) {
        *link = sample->chain;
        samples.live_count--;
    }
    return sample;
}

bool heap_sample_add(uintptr_t addr, uintptr_t place, const struct heap_call *call)
{
    uint64_t now_ns = clock_now_ns();
    lock_acquire(&samples.lock);
    struct heap_stack *record = stack_of(call);
    struct heap_sample *sample = record == NULL ? NULL : sample_new();
    if (sample != NULL) {
        *sample =
            (struct heap_sample){.stack = record, .addr = addr, .place = place, .made_ns = now_ns};
        sample_link(sample);
        record->alloc_count++;
    } else {
        samples.dropped_count++;
    }
    lock_release(&samples.lock);
    return sample != NULL;
}

bool heap_sample_has(uintptr_t addr)
{
    bool found = false;
    lock_acquire(&samples.lock);
    if (samples.live_count != 0) {
        const struct heap_sample *sample = samples.blocks[block_slot(addr)];
        while (sample != NULL && sample->addr != addr) {
            sample = sample->chain;
        }
        found = sample != NULL;
    }
    lock_release(&samples.lock);
    return found;
}

uintptr_t heap_sample_remove(uintptr_t addr)
{
    uintptr_t place = 0;
    lock_acquire(&samples.lock);
    struct heap_sample *sample = sample_unlink(addr);
    if (sample != NULL) {
        place = sample->place;
        sample->stack->free_count++;
        sample->chain = samples.unused;
        samples.unused = sample;
    }
    lock_release(&samples.lock);
    if (place != 0) {
        usdt_free((void *)addr);
    }
    return place;
}

uintptr_t heap_sample_move(uintptr_t addr, uintptr_t new_addr, uintptr_t new_place,
                           uint64_t block_bytes)
{
    uintptr_t place = 0;
    uint64_t interval_bytes = 0;
    lock_acquire(&samples.lock);
    struct heap_sample *sample = sample_unlink(addr);
    if (sample != NULL) {
        struct heap_stack *old = sample->stack;
        struct heap_stack *record =
            old->block_bytes == block_bytes ? old : stack_resized(old, block_bytes);
        if (record != NULL) {
            old->free_count++;
            record->alloc_count++;
            sample->stack = record;
        }
        place = sample->place;
        sample->addr = new_addr;
        sample->place = new_place;
        sample_link(sample);
        interval_bytes = sample->stack->interval_bytes;
    }
    lock_release(&samples.lock);
    if (place != 0) {
        usdt_free((void *)addr);
        usdt_alloc((void *)new_addr, block_bytes, interval_bytes);
    }
    return place;
}

void heap_sample_totals(struct heap_sample_totals *totals)
{
    lock_acquire(&samples.lock);
    *totals = (struct heap_sample_totals){
        .stack_count = samples.stack_count,
        .live_count = samples.live_count,
        .dropped_count = samples.dropped_count,
    };
    lock_release(&samples.lock);
}

size_t heap_sample_stacks(struct heap_stack_count *out, size_t max)
{
    size_t count = 0;
    lock_acquire(&samples.lock);
    for (size_t i = 0; i < samples.stack_slots; i++) {
        for (const struct heap_stack *s = samples.stacks[i]; s != NULL; s = s->chain) {
            if (count < max) {
                out[count] = (struct heap_stack_count){s, s->alloc_count, s->free_count};
            }
            count++;
        }
    }
    lock_release(&samples.lock);
    return count;
}

size_t heap_sample_live(struct heap_sample *out, size_t max)
{
    size_t count = 0;
    lock_acquire(&samples.lock);
    for (size_t i = 0; i < samples.block_slots; i++) {
        for (const struct heap_sample *s = samples.blocks[i]; s != NULL; s = s->chain) {
            if (count < max) {
                out[count] = *s;
            }
            count++;
        }
    }
    lock_release(&samples.lock);
    return count;
}

void heap_sample_each(void (*visit)(void *arg, const struct heap_sample *sample), void *arg)
{
    lock_acquire(&samples.lock);
    for (size_t i = 0; i < samples.block_slots; i++) {
        for (const struct heap_sample *s = samples.blocks[i]; s != NULL; s = s->chain) {
            visit(arg, s);
        }
    }
    lock_release(&samples.lock);
}

void heap_sample_freeze(void)
{
    lock_freeze(&samples.lock);
}

void heap_sample_thaw(void)
{
    lock_thaw(&samples.lock);
}

const char *heap_sample_verify(void)
{
    size_t live = 0;
    size_t stacks = 0;
    uint64_t outstanding = 0;
    const char *wrong = NULL;
    lock_acquire(&samples.lock);
    for (size_t i = 0; i < samples.block_slots; i++) {
        for (const struct heap_sample *s = samples.blocks[i]; s != NULL; s = s->chain) {
            wrong = block_slot(s->addr) == i ? wrong : "profile: a sample is in the wrong slot";
            live++;
        }
    }
    for (size_t i = 0; i < samples.stack_slots; i++) {
        for (const struct heap_stack *s = samples.stacks[i]; s != NULL; s = s->chain) {
            outstanding += s->alloc_count - s->free_count;
            stacks++;
        }
    }
    if (live != samples.live_count || stacks != samples.stack_count) {
        wrong = "profile: samples or stacks are miscounted";
    } else if (outstanding != live) {
        wrong = "profile: stacks and samples in use differ";
    }
    lock_release(&samples.lock);
    return wrong;
}
