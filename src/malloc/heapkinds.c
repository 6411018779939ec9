// SPDX-License-Identifier: MIT
//
// The profiles of the heap: heap and allocs as Go has them, growth and pins as Go has not.
//
// Go  1.19 runtime/pprof/protomem.go writeHeapProto, scaleHeapSample. growth and pins: none.
#include "base/fmt.h"
#include "malloc/malloc.h"
#include "os/clock.h"
#include "profile/profile.h"

// What may be added while memory for a copy is being found.
#define COPY_ROOM 256

enum { ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE };

// --- exact totals ---

static void comment_bytes(struct profile_set *set, const char *name, uint64_t objects,
                          uint64_t bytes)
{
    char buf[128];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "exact ");
    fmt_str(&line, name);
    fmt_str(&line, ": ");
    fmt_u64(&line, objects);
    fmt_str(&line, " objects, ");
    fmt_u64(&line, bytes);
    fmt_str(&line, " bytes");
    profile_set_comment(set, buf);
}

// What the samples estimate, as it was counted.
static void exact_comments(struct profile_set *set)
{
    struct heap_stats stats;
    world_freeze(&heap_main);
    heap_stats_read(&heap_main, &stats);
    world_thaw(&heap_main);
    uint64_t alloc_count = 0;
    uint64_t live_count = 0;
    uint64_t alloc_bytes = stats.large_alloc_bytes;
    uint64_t live_bytes = stats.large_live_bytes;
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        uint64_t bytes = sizeclass_table[i].block_bytes;
        alloc_count += stats.alloc_count[i];
        live_count += stats.live_count[i];
        alloc_bytes += stats.alloc_count[i] * bytes;
        live_bytes += stats.live_count[i] * bytes;
    }
    comment_bytes(set, "inuse", live_count, live_bytes);
    comment_bytes(set, "alloc", alloc_count, alloc_bytes);
}

// --- heap, allocs ---

// What count sampled blocks stand for.
static int64_t scale(uint64_t count, double chance)
{
    return (int64_t)((double)count / chance);
}

static bool stack_add(struct profile_set *set, const struct heap_stack_count *counted)
{
    const struct heap_stack *stack = counted->stack;
    double chance = heap_sample_chance(stack->interval_bytes, (double)stack->block_bytes);
    uint64_t live = counted->alloc_count - counted->free_count;
    struct profile_sample sample = {
        .stack = stack->stack,
        .depth = stack->depth,
        .values = {[ALLOC_OBJECTS] = scale(counted->alloc_count, chance),
                   [ALLOC_SPACE] = scale(counted->alloc_count * stack->block_bytes, chance),
                   [INUSE_OBJECTS] = scale(live, chance),
                   [INUSE_SPACE] = scale(live * stack->block_bytes, chance)},
        .labels = {{.key = "bytes", .number = (int64_t)stack->block_bytes, .unit = "bytes"}},
        .label_count = 1,
    };
    profile_sample_label(&sample, stack->labels);
    return profile_set_add(set, &sample);
}

static bool heap_collect(struct profile_set *set, const char **why)
{
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    set->period = (int64_t)load_relaxed(&heap_main.sample_interval);
    size_t max = totals.stack_count + COPY_ROOM;
    struct heap_stack_count *stacks = region_alloc(&set->region, max * sizeof(*stacks));
    if (stacks == NULL) {
        *why = "not enough memory for a copy of the stacks";
        return false;
    }
    exact_comments(set);
    size_t count = min_size(heap_sample_stacks(stacks, max), max);
    for (size_t i = 0; i < count; i++) {
        if (!stack_add(set, &stacks[i])) {
            break; // set->cut says so
        }
    }
    return true;
}

static uint64_t heap_count(void)
{
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    return totals.stack_count;
}

// --- growth ---

static const struct {
    uint64_t below_s;
    const char *text;
} ages[] = {
    {10, "under 10s"},   {60, "10s to 1m"},    {600, "1m to 10m"},
    {3600, "10m to 1h"}, {86400, "1h to 24h"}, {UINT64_MAX, "over 24h"},
};

static const char *age_text(uint64_t age_ns)
{
    size_t i = 0;
    while (age_ns / NS_PER_S >= ages[i].below_s) {
        i++;
    }
    return ages[i].text;
}

// A copy of the live samples in the set's region; NULL and why without memory.
static struct heap_sample *live_copy(struct profile_set *set, size_t *count, const char **why)
{
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    set->period = (int64_t)load_relaxed(&heap_main.sample_interval);
    size_t max = totals.live_count + COPY_ROOM;
    struct heap_sample *copy = region_alloc(&set->region, max * sizeof(*copy));
    if (copy == NULL) {
        *why = "not enough memory for a copy of the samples";
        return NULL;
    }
    *count = min_size(heap_sample_live(copy, max), max);
    return copy;
}

static bool growth_collect(struct profile_set *set, const char **why)
{
    size_t count;
    struct heap_sample *live = live_copy(set, &count, why);
    if (live == NULL) {
        return false;
    }
    exact_comments(set);
    uint64_t now_ns = clock_now_ns();
    for (size_t i = 0; i < count; i++) {
        const struct heap_stack *stack = live[i].stack;
        double chance = heap_sample_chance(stack->interval_bytes, (double)stack->block_bytes);
        uint64_t age_ns = now_ns > live[i].made_ns ? now_ns - live[i].made_ns : 0;
        struct profile_sample sample = {
            .stack = stack->stack,
            .depth = stack->depth,
            .values = {scale(1, chance), scale(stack->block_bytes, chance)},
            .labels = {{.key = "age", .text = age_text(age_ns)}},
            .label_count = 1,
        };
        profile_sample_label(&sample, stack->labels);
        if (!profile_set_add(set, &sample)) {
            break;
        }
    }
    return true;
}

static uint64_t live_count(void)
{
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    return totals.live_count;
}

// --- pins ---

// What a live sample keeps from going back: its share of the free bytes of its span.
struct pin {
    const struct heap_stack *stack;
    uint64_t free_bytes; // of the span
    uint64_t used;       // blocks in use in it
};

struct pins {
    struct pin *items;
    size_t count;
    size_t max;
};

static void visit_pin(void *arg, const struct heap_sample *sample)
{
    struct pins *pins = arg;
    const struct span *span = span_of(&pageheap_main, (void *)sample->place);
    if (pins->count == pins->max || span == NULL) {
        return;
    }
    struct pin *pin = &pins->items[pins->count++];
    pin->stack = sample->stack;
    span_free_read(span, &pin->free_bytes, &pin->used);
}

static bool pins_collect(struct profile_set *set, const char **why)
{
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    set->period = (int64_t)load_relaxed(&heap_main.sample_interval);
    struct pins pins = {.max = totals.live_count + COPY_ROOM};
    pins.items = region_alloc(&set->region, pins.max * sizeof(*pins.items));
    if (pins.items == NULL) {
        *why = "not enough memory for a copy of the samples";
        return false;
    }
    world_freeze(&heap_main);
    heap_sample_each(visit_pin, &pins);
    world_thaw(&heap_main);
    for (size_t i = 0; i < pins.count; i++) {
        const struct pin *pin = &pins.items[i];
        double chance =
            heap_sample_chance(pin->stack->interval_bytes, (double)pin->stack->block_bytes);
        uint64_t share = pin->free_bytes / max_u64(pin->used, 1);
        struct profile_sample sample = {
            .stack = pin->stack->stack,
            .depth = pin->stack->depth,
            .values = {scale(1, chance), scale(pin->stack->block_bytes, chance),
                       scale(share, chance)},
        };
        profile_sample_label(&sample, pin->stack->labels);
        if (!profile_set_add(set, &sample)) {
            break;
        }
    }
    return true;
}

// --- the kinds ---

#define HEAP_COLUMNS                                                                               \
    .types = {{"alloc_objects", "count"},                                                          \
              {"alloc_space", "bytes"},                                                            \
              {"inuse_objects", "count"},                                                          \
              {"inuse_space", "bytes"}},                                                           \
    .type_count = 4, .period_type = {"space", "bytes"}, .text = PROFILE_TEXT_HEAP, .delta = true,  \
    .collect = heap_collect, .count = heap_count

static const struct profile_kind kind_heap = {
    .name = "heap",
    .help = "Memory in use, by where it was allocated.",
    HEAP_COLUMNS,
};

static const struct profile_kind kind_allocs = {
    .name = "allocs",
    .help = "All memory ever allocated, by where.",
    .default_type = "alloc_space",
    HEAP_COLUMNS,
};

static const struct profile_kind kind_growth = {
    .name = "growth",
    .help = "Memory in use by its age: what is still growing has young and old blocks.",
    .types = {{"inuse_objects", "count"}, {"inuse_space", "bytes"}},
    .type_count = 2,
    .period_type = {"space", "bytes"},
    .text = PROFILE_TEXT_TABLE,
    .collect = growth_collect,
    .count = live_count,
};

static const struct profile_kind kind_pins = {
    .name = "pins",
    .help = "Blocks in use that keep free memory around them from going back.",
    .types = {{"inuse_objects", "count"}, {"inuse_space", "bytes"}, {"pinned_space", "bytes"}},
    .type_count = 3,
    .period_type = {"space", "bytes"},
    .text = PROFILE_TEXT_TABLE,
    .collect = pins_collect,
    .count = live_count,
};

void malloc_add_profiles(void)
{
    profile_add_kind(&kind_heap);
    profile_add_kind(&kind_allocs);
    profile_add_kind(&kind_growth);
    profile_add_kind(&kind_pins);
}
