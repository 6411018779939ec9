// SPDX-License-Identifier: MIT
// Tier  commit
//
// The page heap against an array of pages: random operations, everything verified after each.
//
// Model
//   The array says of each page of the machine: absent, free or used; if free, whether it may be
//   backed by memory (ready), and whether it was given back lazily; and what stands in its first
//   and last word. Checked after each operation: pageheap_verify, every counter against a count of
//   the array, the page map of one span. At each allocation: the address is that of the lowest run
//   that fits, counted naively; the pages are free in the array; zero is said exactly if all of
//   them were released and not lazily; what was written in a page is still there unless it was
//   released, and reads zero if it was. While the releaser has pages withdrawn (inside the advice),
//   other allocations and frees are made, and calls of the machine fail now and then. Rounds differ
//   in the kernel's page, in the machine's limits, and in where it places regions. Round r of seed
//   s is round 0 of seed s + r.
//
// Go  runtime/mpagealloc_test.go, with tables instead of a model.
#include "support/unit.h"

#include <stdio.h>
#include <string.h>

#include "base/fatal.h"
#include "support/heapbox.h"

#define SPACE_BYTES (512 * MIB)
#define SPACE_PAGES (SPACE_BYTES / PAGE_BYTES)
#define LIVE_MAX 250
#define ROUND_OPS 700
// Of larger spans not every page is written, or the test would measure page faults.
#define STAMP_ALL_PAGES 48

enum page_state { PAGE_ABSENT, PAGE_FREE, PAGE_USED, PAGE_WITHDRAWN };

struct live {
    struct span *span;
    size_t first;
    size_t count;
    enum pageheap_kind kind;
};

static struct model {
    struct heapbox box;
    uint64_t random;
    uint64_t round_seed;
    size_t op;
    const char *op_name;
    uint8_t state[SPACE_PAGES];
    bool ready[SPACE_PAGES];
    bool lazy[SPACE_PAGES];
    bool dropped[SPACE_PAGES];     // given back for good since it was written
    uint64_t content[SPACE_PAGES]; // first and last word; 0: never written, or dropped
    struct live live[LIVE_MAX];
    size_t live_count;
    size_t advised_pages;        // by the release under way
    size_t advised_chunk;        // of its last run: never goes up
    size_t withdrawn_pages;      // by the step under way
    bool withdrawn[SPACE_PAGES]; // and not advised yet
    bool release_lazy;           // the pass is one over lazy pages
    bool releasing;
    bool interfere;
    enum vm_advice advice;
    uint64_t stamp;
} m;

static void say_seed(void)
{
    fprintf(stderr, "  in operation %zu (%s), EBB_SEED=%llu replays it\n", m.op, m.op_name,
            (unsigned long long)m.round_seed);
}

static void check_failed(const char *cond, int line)
{
    fprintf(stderr, "pageheap_model line %d: %s\n", line, cond);
    say_seed();
    cr_assert_fail("%s", cond);
}

#define CHECK_MODEL(cond) ((cond) ? (void)0 : check_failed(#cond, __LINE__))

static char *page_addr(size_t page)
{
    return m.box.sim.space + page * PAGE_BYTES;
}

static size_t page_of(uintptr_t addr)
{
    return (addr - (uintptr_t)m.box.sim.space) / PAGE_BYTES;
}

static uint64_t *page_word(size_t page, int which)
{
    char *addr = page_addr(page) + (which == 0 ? 0 : PAGE_BYTES - sizeof(uint64_t));
    return (uint64_t *)(void *)addr;
}

static bool one_in(uint64_t n)
{
    return frame_below(&m.random, n) == 0;
}

// --- the naive side ---

// Pages that were prepared since: chunks of the heap's regions, which alone are marked sparse.
static void learn_growth(void)
{
    for (size_t page = 0; page < SPACE_PAGES; page += CHUNK_PAGES) {
        if (m.state[page] == PAGE_ABSENT && vm_sim_is_sparse(&m.box.sim, page_addr(page)) &&
            vm_sim_state_at(&m.box.sim, page_addr(page)) >= VM_SIM_PREPARED) {
            for (size_t i = page; i < page + CHUNK_PAGES; i++) {
                m.state[i] = PAGE_FREE;
            }
        }
    }
}

// First page of the lowest run of need free pages, or SPACE_PAGES.
static size_t naive_find(size_t need)
{
    size_t run = 0;
    for (size_t page = 0; page < SPACE_PAGES; page++) {
        run = m.state[page] == PAGE_FREE ? run + 1 : 0;
        if (run == need) {
            return page + 1 - need;
        }
    }
    return SPACE_PAGES;
}

// The same for a run that crosses no border.
static size_t naive_find_inside(size_t need)
{
    size_t run = 0;
    for (size_t page = 0; page < SPACE_PAGES; page++) {
        run = page % ARENA_PAGES == 0 ? 0 : run;
        run = m.state[page] == PAGE_FREE ? run + 1 : 0;
        if (run == need) {
            return page + 1 - need;
        }
    }
    return SPACE_PAGES;
}

static bool crosses_arena(size_t first, size_t count)
{
    return first / ARENA_PAGES != (first + count - 1) / ARENA_PAGES;
}

// Where the header says an allocation goes; SPACE_PAGES: nowhere without growing.
static size_t naive_place(size_t count, size_t align, enum pageheap_kind kind)
{
    size_t first = naive_find(count + align - 1);
    if (first == SPACE_PAGES) {
        return first;
    }
    first = align_up(first, align);
    if (kind == PAGEHEAP_LARGE || !crosses_arena(first, count)) {
        return first;
    }
    return naive_find_inside(count);
}

// The words of a page are what the model says. Reads only pages that were once written.
static void check_content(size_t page)
{
    uint64_t content = m.content[page];
    if (content == 0 && !m.dropped[page]) {
        return;
    }
    for (int which = 0; which < 2; which++) {
        uint64_t word = *page_word(page, which);
        CHECK_MODEL(word == content || (m.lazy[page] && word == 0));
    }
    m.dropped[page] = false;
}

static void take_pages(size_t first, size_t count)
{
    for (size_t page = first; page < first + count; page++) {
        CHECK_MODEL(m.state[page] == PAGE_FREE);
        check_content(page);
        // Lazily freed: from here on it is only known that the word is one of two.
        if (m.lazy[page]) {
            for (int which = 0; which < 2; which++) {
                *page_word(page, which) = m.content[page];
            }
        }
        m.state[page] = PAGE_USED;
        m.ready[page] = false;
        m.lazy[page] = false;
        size_t index = page - first;
        if (count <= STAMP_ALL_PAGES || index % 16 == 0 || index == count - 1) {
            m.content[page] = ++m.stamp * UINT64_C(0x9e3779b97f4a7c15);
            *page_word(page, 0) = m.content[page];
            *page_word(page, 1) = m.content[page];
        }
    }
}

static void give_pages(size_t first, size_t count)
{
    for (size_t page = first; page < first + count; page++) {
        CHECK_MODEL(m.state[page] == PAGE_USED);
        if (m.content[page] != 0) {
            check_content(page);
        }
        m.state[page] = PAGE_FREE;
        m.ready[page] = true;
    }
}

static void check_counters(void)
{
    uint64_t sys = 0;
    uint64_t used = 0;
    uint64_t ready = 0;
    uint64_t lazy = 0;
    for (size_t page = 0; page < SPACE_PAGES; page++) {
        sys += m.state[page] != PAGE_ABSENT;
        used += m.state[page] == PAGE_USED;
        ready += m.ready[page];
        lazy += m.lazy[page];
    }
    struct pageheap_stats stats;
    pageheap_stats_read(m.box.pages, &stats);
    CHECK_MODEL(stats.sys_pages == sys);
    CHECK_MODEL(stats.used_pages == used);
    CHECK_MODEL(stats.ready_pages == ready);
    CHECK_MODEL(stats.lazy_pages == lazy);
    CHECK_MODEL(stats.released_pages == sys - used - ready);
    CHECK_MODEL(stats.withdrawn_pages == 0);
    CHECK_MODEL(stats.span_count == m.live_count);
}

static void check_map(void)
{
    if (m.live_count == 0) {
        return;
    }
    const struct live *live = &m.live[frame_below(&m.random, m.live_count)];
    size_t inside = live->first + frame_below(&m.random, live->count);
    char *addr = page_addr(inside) + frame_below(&m.random, PAGE_BYTES);
    CHECK_MODEL(live->span->base == (uintptr_t)page_addr(live->first));
    CHECK_MODEL(live->span->page_count == live->count);
    CHECK_MODEL(span_of(m.box.pages, page_addr(live->first)) == live->span);
    CHECK_MODEL(pageheap_find(m.box.pages, addr) == live->span);
    if (inside != live->first) {
        struct span *want = live->kind == PAGEHEAP_SMALL ? live->span : &span_none;
        CHECK_MODEL(span_of(m.box.pages, addr) == want);
    }
    size_t other = frame_below(&m.random, SPACE_PAGES);
    if (m.state[other] == PAGE_FREE) {
        CHECK_MODEL(pageheap_find(m.box.pages, page_addr(other)) == NULL);
    }
}

static void verify(void)
{
    const char *wrong = pageheap_verify(m.box.pages);
    if (wrong != NULL) {
        check_failed(wrong, __LINE__);
    }
}

// --- operations ---

static size_t random_pages(void)
{
    switch (frame_below(&m.random, 8)) {
    case 0:
        return 1 + frame_below(&m.random, 2000);
    case 1:
        return 1 + frame_below(&m.random, 300);
    case 2:
    case 3:
        return 1 + frame_below(&m.random, 40);
    default:
        return 1 + frame_below(&m.random, 8);
    }
}

static void add_live(struct span *span, size_t count, enum pageheap_kind kind)
{
    // What span_new does: pageheap_free asks the class how many pages are mapped.
    span->size_class = kind == PAGEHEAP_SMALL;
    m.live[m.live_count++] = (struct live){span, page_of(span->base), count, kind};
}

enum {
    BESIDE_PAGES_MAX = 40, // what is allocated while a release is under way
    ALIGN_SHIFT_MAX = 7,
};

static void do_alloc(void)
{
    m.op_name = "alloc";
    enum pageheap_kind kind = one_in(2) ? PAGEHEAP_SMALL : PAGEHEAP_LARGE;
    size_t count = m.releasing ? 1 + frame_below(&m.random, BESIDE_PAGES_MAX) : random_pages();
    size_t align = kind == PAGEHEAP_LARGE && one_in(4)
                       ? (size_t)1 << frame_below(&m.random, ALIGN_SHIFT_MAX + 1)
                       : 1;
    size_t want = m.releasing ? SPACE_PAGES : naive_place(count, align, kind);
    uint64_t refused = m.box.sim.refused_count + load_relaxed(&m.box.fail.fault_count);
    struct span *span = pageheap_alloc(m.box.pages, count, align, kind);
    learn_growth();
    if (span == NULL) {
        CHECK_MODEL(want == SPACE_PAGES);
        CHECK_MODEL(m.box.sim.refused_count + load_relaxed(&m.box.fail.fault_count) > refused);
        return;
    }
    size_t first = page_of(span->base);
    if (!m.releasing) {
        want = want == SPACE_PAGES ? naive_place(count, align, kind) : want;
        CHECK_MODEL(first == want);
    }
    CHECK_MODEL(first % align == 0);
    CHECK_MODEL(span->page_count == count);
    CHECK_MODEL(kind == PAGEHEAP_LARGE || !crosses_arena(first, count));
    bool zero = true;
    for (size_t page = first; page < first + count; page++) {
        zero = zero && !m.ready[page] && !m.lazy[page];
    }
    CHECK_MODEL(zero == (span->zero != 0));
    take_pages(first, count);
    add_live(span, count, kind);
}

// While pages are withdrawn, an allocation that finds no memory waits for them. Here they come back
// only after it: so the machine has no limit for the time.
static void do_alloc_unlimited(void)
{
    struct vm_sim *sim = &m.box.sim;
    size_t space_limit_bytes = sim->space_limit_bytes;
    size_t commit_limit_bytes = sim->commit_limit_bytes;
    uint64_t fail_at = m.box.fail.fail_at;
    sim->space_limit_bytes = SIZE_MAX;
    sim->commit_limit_bytes = SIZE_MAX;
    m.box.fail.fail_at = 0;
    do_alloc();
    sim->space_limit_bytes = space_limit_bytes;
    sim->commit_limit_bytes = commit_limit_bytes;
    m.box.fail.fail_at = fail_at;
}

static void do_free(void)
{
    m.op_name = "free";
    if (m.live_count == 0) {
        return;
    }
    size_t index = frame_below(&m.random, m.live_count);
    struct live live = m.live[index];
    m.live[index] = m.live[--m.live_count];
    give_pages(live.first, live.count);
    pageheap_free(m.box.pages, live.span);
}

static void do_extend(void)
{
    m.op_name = "extend";
    if (m.live_count == 0) {
        return;
    }
    struct live *live = &m.live[frame_below(&m.random, m.live_count)];
    if (live->kind == PAGEHEAP_SMALL) {
        return;
    }
    size_t more = 1 + frame_below(&m.random, one_in(3) ? 600 : 12);
    bool is_free = true;
    for (size_t page = live->first + live->count; page < live->first + live->count + more; page++) {
        is_free = is_free && page < SPACE_PAGES && m.state[page] == PAGE_FREE;
    }
    CHECK_MODEL(pageheap_extend(m.box.pages, live->span, live->count + more) == is_free);
    if (is_free) {
        take_pages(live->first + live->count, more);
        live->count += more;
    }
}

static void do_shrink(void)
{
    m.op_name = "shrink";
    if (m.live_count == 0) {
        return;
    }
    struct live *live = &m.live[frame_below(&m.random, m.live_count)];
    if (live->kind == PAGEHEAP_SMALL || live->count == 1) {
        return;
    }
    size_t less = 1 + frame_below(&m.random, live->count - 1);
    give_pages(live->first + live->count - less, less);
    live->count -= less;
    pageheap_shrink(m.box.pages, live->span, live->count);
}

// The tables of an arena are on their way back: nothing may be allocated there. Where only growing
// would help, an allocation may wait for the arena (test/unit/pageheap_test.c has that).
static void do_alloc_beside_hidden(void)
{
    size_t hidden = SPACE_PAGES;
    for (size_t first = 0; first < SPACE_PAGES; first += ARENA_PAGES) {
        uintptr_t offset = (uintptr_t)page_addr(first) - m.box.pages->window_start;
        const struct arena *arena = pageheap_arena(m.box.pages, offset >> ARENA_SHIFT);
        if (arena != NULL && arena->hidden) {
            CHECK_MODEL(hidden == SPACE_PAGES);
            hidden = first;
        }
    }
    CHECK_MODEL(hidden != SPACE_PAGES);
    uint8_t kept[ARENA_PAGES];
    memcpy(kept, &m.state[hidden], sizeof(kept));
    for (size_t page = hidden; page < hidden + ARENA_PAGES; page++) {
        if (m.state[page] == PAGE_FREE) {
            m.state[page] = PAGE_WITHDRAWN;
        }
    }
    // A run that holds any such span aligned, and a small one on one side of an arena's border.
    if (naive_find(BESIDE_PAGES_MAX + ((size_t)1 << ALIGN_SHIFT_MAX)) != SPACE_PAGES) {
        do_alloc();
    }
    memcpy(&m.state[hidden], kept, sizeof(kept));
}

// All pages of a step are withdrawn before the first is advised. Which, is asked from the heap;
// that they are the right ones, and all are advised, is checked after.
static void learn_withdrawn(void)
{
    for (size_t page = 0; page < SPACE_PAGES; page++) {
        if (m.state[page] != PAGE_FREE || (m.release_lazy ? !m.lazy[page] : !m.ready[page])) {
            continue;
        }
        uintptr_t offset = (uintptr_t)page_addr(page) - m.box.pages->window_start;
        const struct arena *arena = pageheap_arena(m.box.pages, offset >> ARENA_SHIFT);
        if (arena != NULL && (arena->allocated[page % ARENA_PAGES / 64] >> page % 64 & 1) != 0) {
            m.state[page] = PAGE_WITHDRAWN;
            m.withdrawn[page] = true;
            m.withdrawn_pages++;
        }
    }
}

// The step is over: what was withdrawn is free again.
static void end_withdrawn(size_t refused_pages)
{
    size_t left = 0;
    for (size_t page = 0; page < SPACE_PAGES; page++) {
        left += m.withdrawn[page];
        m.withdrawn[page] = false;
        if (m.state[page] == PAGE_WITHDRAWN) {
            m.state[page] = PAGE_FREE;
        }
    }
    CHECK_MODEL(m.withdrawn_pages == 0 || left == refused_pages);
    m.withdrawn_pages = 0;
}

// The machine is about to take [addr, addr + bytes): the pages are with the releaser.
static void on_unused(void *arg, char *addr, size_t bytes)
{
    (void)arg;
    if (!m.releasing) {
        return;
    }
    if (vm_sim_is_sparse(&m.box.sim, addr)) {
        size_t first = page_of((uintptr_t)addr);
        CHECK_MODEL(first / CHUNK_PAGES <= m.advised_chunk);
        m.advised_chunk = first / CHUNK_PAGES;
        m.advised_pages += bytes / PAGE_BYTES;
        if (m.withdrawn_pages == 0) {
            learn_withdrawn();
        }
        for (size_t page = first; page < first + bytes / PAGE_BYTES; page++) {
            CHECK_MODEL(m.state[page] == PAGE_WITHDRAWN && m.withdrawn[page]);
            CHECK_MODEL(m.release_lazy ? m.lazy[page] : m.ready[page]);
            m.withdrawn[page] = false;
            m.ready[page] = false;
            m.lazy[page] = m.advice == VM_ADVICE_FREE;
            if (m.advice == VM_ADVICE_DONTNEED) {
                m.dropped[page] = m.dropped[page] || m.content[page] != 0;
                m.content[page] = 0;
            }
        }
    }
    if (m.interfere && m.live_count < LIVE_MAX) {
        const char *name = m.op_name;
        if (one_in(2) && vm_sim_is_sparse(&m.box.sim, addr)) {
            do_alloc_unlimited();
        } else if (one_in(2) && !vm_sim_is_sparse(&m.box.sim, addr)) {
            do_alloc_beside_hidden();
        } else {
            do_free();
        }
        m.op_name = name;
    }
    verify();
}

// After a whole pass no kernel page is left whose pages are all ready.
static void check_all_released(void)
{
    size_t group = max_size(m.box.sim.vm.page_bytes / PAGE_BYTES, 1);
    for (size_t page = 0; page < SPACE_PAGES; page += group) {
        size_t ready = 0;
        for (size_t i = page; i < page + group; i++) {
            ready += m.ready[i];
        }
        CHECK_MODEL(ready < group);
    }
}

static void do_release(void)
{
    m.op_name = "release";
    m.release_lazy = one_in(4);
    m.advice = !m.release_lazy && one_in(3) ? VM_ADVICE_FREE : VM_ADVICE_DONTNEED;
    m.interfere = one_in(3);
    m.releasing = true;
    m.advised_chunk = SIZE_MAX;
    size_t most = one_in(3) ? SIZE_MAX : 1 + frame_below(&m.random, 600);
    size_t steps = one_in(2) ? SIZE_MAX : 1 + frame_below(&m.random, 4);
    struct pageheap_filter filter = {.max_pages = most, .lazy = m.release_lazy};
    bool all_ages = one_in(2);
    filter.min_run_pages = one_in(3) ? 1u << frame_below(&m.random, 7) : 0;
    filter.min_age_ticks = all_ages ? 0 : (uint8_t)frame_below(&m.random, 4);
    struct pageheap_cursor cursor = pageheap_cursor_top(m.box.pages);
    size_t refused = 0;
    bool more = true;
    for (size_t step = 0; more && step < steps; step++) {
        struct pageheap_release_result result = {0};
        m.advised_pages = 0;
        CHECK_MODEL(step < SPACE_PAGES); // a pass ends, whatever is refused
        more = pageheap_release(m.box.pages, &cursor, &filter, m.advice, &result);
        CHECK_MODEL(result.pages == m.advised_pages);
        CHECK_MODEL(more || result.pages == 0);
        // A word of the bitmap is not cut in two: at most 63 pages more than asked for.
        CHECK_MODEL(result.pages <= CHUNK_PAGES);
        CHECK_MODEL(most == SIZE_MAX || result.pages < most + 64);
        end_withdrawn(result.refused);
        refused += result.refused;
    }
    m.releasing = false;
    m.release_lazy = false;
    bool all = all_ages && filter.min_run_pages <= 1 && !filter.lazy;
    if (!more && !m.interfere && refused == 0 && all) {
        check_all_released();
    }
}

static void do_release_tables(void)
{
    m.op_name = "release_tables";
    m.releasing = true;
    m.interfere = one_in(3);
    m.advised_chunk = 0; // only tables: no run of the heap may be advised
    pageheap_release_tables(m.box.pages);
    m.releasing = false;
}

static void step(void)
{
    bool fault = one_in(12);
    if (fault) {
        vm_fail_arm(&m.box.fail, VM_FAIL_ANY & ~VM_FAIL_HINTS,
                    one_in(2) ? VM_FAIL_ONCE : VM_FAIL_FROM, 1 + frame_below(&m.random, 3));
    }
    uint64_t choice = frame_below(&m.random, 100);
    // The number of spans swings, so that arenas fill and empty.
    uint64_t alloc_share = m.op / 100 % 2 == 0 ? 50 : 25;
    if (choice < alloc_share && m.live_count < LIVE_MAX - 8) {
        do_alloc();
    } else if (choice < 75) {
        do_free();
    } else if (choice < 83) {
        do_extend();
    } else if (choice < 90) {
        do_shrink();
    } else if (choice < 97) {
        do_release();
    } else {
        do_release_tables();
    }
    vm_fail_disarm(&m.box.fail);
}

static void run_round(size_t page_bytes, uint64_t seed)
{
    m = (struct model){.random = seed, .round_seed = seed, .op_name = "open"};
    heapbox_open(&m.box, page_bytes, SPACE_BYTES, seed);
    m.box.sim.unused_hook = on_unused;
    if (one_in(3)) {
        m.box.sim.space_limit_bytes = 8 * MIB + frame_below(&m.random, 300) * MIB;
    }
    if (one_in(3)) {
        m.box.sim.commit_limit_bytes = 8 * MIB + frame_below(&m.random, 200) * MIB;
    }
    bool placed_freely = one_in(3);
    for (m.op = 0; m.op < ROUND_OPS; m.op++) {
        if (placed_freely && one_in(50)) {
            m.box.sim.gap_bytes = one_in(2) ? 0 : 4 * MIB * frame_below(&m.random, 4);
        }
        step();
        verify();
        check_counters();
        check_map();
    }
    while (m.live_count != 0) {
        do_free();
    }
    m.op_name = "last release";
    do_release_tables();
    verify();
    check_counters();
    heapbox_close(&m.box);
}

static void run_rounds(size_t page_bytes)
{
    uint64_t seed = frame_seed();
    unsigned rounds = frame_rounds(25);
    fatal_set_hook(say_seed);
    for (unsigned round = 0; round < rounds; round++) {
        run_round(page_bytes, seed + round);
    }
}

EBB_TEST(pageheap_model, kernel_page_4_kib, .timeout = 300)
{
    run_rounds(4 * KIB);
}

EBB_TEST(pageheap_model, kernel_page_16_kib, .timeout = 300)
{
    run_rounds(16 * KIB);
}

EBB_TEST(pageheap_model, kernel_page_64_kib, .timeout = 300)
{
    run_rounds(64 * KIB);
}
