// SPDX-License-Identifier: MIT
// Tier  quick
//
// Ledger: notes of strange ELF files, pages of other versions, lines of maps, intervals, residency
// by each means; the walk against what the heap says of itself, and over structures with random
// bits turned over.
//
// Go  debug/elf/file_test.go, for strange files.
#include "support/unit.h"

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rand.h"
#include "ledger/ledger_int.h"
#include "malloc/malloc.h"
#include "release/release.h"
#include "stats/stats.h"

// ---- notes ----

// An ELF object in memory: header, two program headers, a foreign note and ours.
struct object {
    Elf64_Ehdr ehdr;
    Elf64_Phdr load, note;
    struct {
        Elf64_Nhdr head;
        char name[4];
        char desc[20];
    } foreign;
    struct {
        Elf64_Nhdr head;
        char name[4];
        struct ledger_note desc;
    } __attribute__((packed, aligned(4))) ours;
};

#define OBJECT_BYTES (offsetof(struct object, ours) + sizeof(((struct object *)0)->ours))

static struct object object_make(void)
{
    struct object o = {
        .ehdr = {.e_phoff = offsetof(struct object, load),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .load = {.p_type = PT_LOAD, .p_vaddr = 0x10000},
        .note = {.p_type = PT_NOTE,
                 .p_vaddr = 0x10000 + offsetof(struct object, foreign),
                 .p_filesz = sizeof(struct object) - offsetof(struct object, foreign)},
        .foreign = {{4, 20, NT_GNU_BUILD_ID}, "GNU", {0}},
        .ours = {{4, 16, LEDGER_NOTE_TYPE}, "Ebb", {LEDGER_NOTE_VERSION, 0, 0x1234}},
    };
    memcpy(o.ehdr.e_ident, ELFMAG, SELFMAG);
    o.ehdr.e_ident[EI_CLASS] = ELFCLASS64;
    return o;
}

static size_t notes_of(const struct object *o, struct ledger_segment *segment)
{
    uint64_t first = 0;
    size_t count = ledger_elf_notes(o, sizeof(*o), segment, 1, &first);
    cr_assert(count == 0 || first == 0x10000);
    return count;
}

EBB_TEST(ledger, a_note_is_found_behind_others)
{
    struct object o = object_make();
    struct ledger_segment segment;
    cr_assert(notes_of(&o, &segment) == 1);
    cr_assert(segment.addr == 0x10000 + offsetof(struct object, foreign));
    size_t pos = ledger_note_find(&o.foreign, segment.bytes);
    cr_assert(pos == offsetof(struct object, ours.desc) - offsetof(struct object, foreign));
    o.ours.head.n_type++;
    cr_assert(ledger_note_find(&o.foreign, segment.bytes) == SIZE_MAX, "another type");
    o = object_make();
    memcpy(o.ours.name, "Ebc", 4);
    cr_assert(ledger_note_find(&o.foreign, segment.bytes) == SIZE_MAX, "another owner");
    o = object_make();
    o.ours.head.n_descsz = 12;
    cr_assert(ledger_note_find(&o.foreign, segment.bytes) == SIZE_MAX, "too short");
}

EBB_TEST(ledger, truncated_and_absurd_files_have_no_note)
{
    struct object o = object_make();
    struct ledger_segment segment;
    uint64_t first;
    // At every length: in a copy of exactly that length, so that a sanitizer sees a step beyond.
    for (size_t len = 0; len < OBJECT_BYTES; len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, &o, len);
        size_t count = ledger_elf_notes(copy, len, &segment, 1, &first);
        cr_assert(count == (len >= offsetof(struct object, foreign)), "%zu", len);
        if (len >= offsetof(struct object, foreign)) {
            size_t bytes = len - offsetof(struct object, foreign);
            cr_assert(ledger_note_find(copy + offsetof(struct object, foreign), bytes) == SIZE_MAX);
        }
        free(copy);
    }
    o.ehdr.e_phoff = UINT64_MAX - 8;
    cr_assert(notes_of(&o, &segment) == 0);
    o = object_make();
    o.ehdr.e_phentsize = 1;
    cr_assert(notes_of(&o, &segment) == 0);
    o = object_make();
    o.ehdr.e_ident[EI_CLASS] = ELFCLASS32;
    cr_assert(notes_of(&o, &segment) == 0);
    o = object_make();
    o.ehdr.e_phnum = UINT16_MAX; // program headers beyond what was read
    cr_assert(notes_of(&o, &segment) == 1);
    o.load.p_type = PT_NULL; // nothing is loaded: nothing says where it is
    cr_assert(notes_of(&o, &segment) == 0);
    const uint32_t sizes[] = {UINT32_MAX, UINT32_MAX - 3, 0x7fffffff, 64, 17};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        o = object_make();
        o.foreign.head.n_namesz = sizes[i];
        (void)ledger_note_find(&o.foreign, sizeof(o) - offsetof(struct object, foreign));
        o.foreign.head.n_namesz = 4;
        o.foreign.head.n_descsz = sizes[i];
        (void)ledger_note_find(&o.foreign, sizeof(o) - offsetof(struct object, foreign));
        o.foreign.head.n_descsz = 20;
        o.ours.head.n_namesz = sizes[i];
        cr_assert(ledger_note_find(&o.foreign, sizeof(o) - offsetof(struct object, foreign)) ==
                  SIZE_MAX);
    }
}

EBB_TEST(ledger, pages_of_another_version_are_refused)
{
    struct ledger_page page = {
        .magic = LEDGER_PAGE_MAGIC,
        .self = 0x7000,
        .version = LEDGER_PAGE_VERSION,
        .bytes = sizeof(page),
        .layout = ledger_layout(),
    };
    cr_assert(ledger_page_check(&page, 0x7000) == 0);
    cr_assert(ledger_page_check(&page, 0x8000) == -EAGAIN, "a mapped file, not a library");
    page.version++;
    cr_assert(ledger_page_check(&page, 0x7000) == -EPROTO);
    page.version--;
    page.bytes -= 8;
    cr_assert(ledger_page_check(&page, 0x7000) == -EPROTO);
    page.bytes += 8;
    page.layout ^= 1;
    cr_assert(ledger_page_check(&page, 0x7000) == -EPROTO);
    page.layout ^= 1;
    page.magic = 0;
    cr_assert(ledger_page_check(&page, 0x7000) == -EAGAIN, "not started");
}

EBB_TEST(ledger, the_page_names_policy_limit_and_own_memory)
{
    static char stack[3][64];
    ledger_page_init();
    const struct ledger_page *page = &ledger_page_main;
    cr_assert(ledger_page_check(page, (uintptr_t)page) == 0);
    cr_assert(load_relaxed(&page->limit_bytes) == UINT64_MAX);
    ledger_page_set_policy("a-name-that-is-longer-than-there-is-room-for");
    cr_assert(strlen(page->policy) == LEDGER_NAME_BYTES - 1);
    ledger_page_set_policy("go1.16");
    cr_assert_str_eq(page->policy, "go1.16");
    ledger_page_add_own(stack[0], 64);
    ledger_page_add_own(stack[1], 64);
    ledger_page_add_own(stack[0], 32);
    cr_assert(page->own[0].start == (uintptr_t)stack[0] && page->own[0].bytes == 32);
    cr_assert(page->own[1].start == (uintptr_t)stack[1] && page->own[2].start == 0);
    for (size_t i = 0; i < 2 * LEDGER_OWN_COUNT; i++) {
        ledger_page_add_own((char *)0x100000 + i * 4096, 64); // the table is bounded
    }
    cr_assert(page->own[LEDGER_OWN_COUNT - 1].bytes == 64);
}

// ---- lines of maps ----

EBB_TEST(ledger, lines_of_maps)
{
    struct mapping m;
    char good[] = "7f0c8a000000-7f0c8a021000 rw-p 00001000 fe:01 1234  /a b (deleted)";
    cr_assert(mapping_parse(good, &m));
    cr_assert(m.start == 0x7f0c8a000000 && m.end == 0x7f0c8a021000 && m.offset == 0x1000);
    cr_assert(m.inode == 1234);
    cr_assert_str_eq(m.perms, "rw-p");
    cr_assert_str_eq(m.path, "/a b (deleted)");
    char plain[] = "00400000-00452000 ---p 00000000 00:00 0 ";
    cr_assert(mapping_parse(plain, &m) && m.path[0] == '\0' && m.inode == 0);
    const char *bad[] = {
        "",
        "nonsense",
        "400000-300000 rw-p 0 00:00 0",
        "400000 rw-p 0 00:00 0",
        "400000-500000",
        "400000-500000 rw",
        "400000-500000 rw-p",
        "400000-500000 rw-p 0 00",
        "10000000000000000-20000000000000000 rw-p 0 00:00 0",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char line[100];
        strcpy(line, bad[i]);
        cr_assert(!mapping_parse(line, &m), "%s", bad[i]);
    }
}

EBB_TEST(ledger, what_a_mapping_is)
{
    static const struct {
        const char *line;
        enum mapping_kind kind;
    } rows[] = {
        {"10000-20000 r-xp 0 fe:01 7  /usr/bin/x", MAPPING_DATA},
        {"20000-30000 rw-p 0 fe:01 7  /usr/bin/x", MAPPING_DATA},
        {"30000-40000 rw-p 0 00:00 0 ", MAPPING_DATA}, // .bss
        {"40000-50000 rw-p 0 00:00 0 ", MAPPING_ANONYMOUS},
        {"60000-70000 rw-p 0 00:00 0  [heap]", MAPPING_ANONYMOUS},
        {"80000-81000 ---p 0 00:00 0 ", MAPPING_ANONYMOUS},
        {"81000-91000 rw-p 0 00:00 0 ", MAPPING_STACK},
        {"91000-a0000 ---p 0 00:00 0 ", MAPPING_ANONYMOUS},
        {"a0000-a1000 rw-p 0 00:00 0 ", MAPPING_ANONYMOUS}, // smaller than any stack
        {"a1000-c1000 ---p 0 00:00 0 ", MAPPING_ANONYMOUS}, // larger than any guard
        {"c1000-d0000 rw-p 0 00:00 0 ", MAPPING_ANONYMOUS},
        {"d0000-e0000 rw-s 0 00:01 9  /memfd:x (deleted)", MAPPING_SHMEM},
        {"e0000-f0000 rw-p 0 00:00 0 ", MAPPING_ANONYMOUS}, // no variables of shared memory
        {"f0000-100000 rw-s 0 00:01 9  [anon_shmem:x]", MAPPING_SHMEM},
        {"110000-120000 rw-p 0 00:00 0  [anon: Go: heap]", MAPPING_ANONYMOUS},
        {"120000-130000 rw-p 0 00:00 0  [stack]", MAPPING_STACK},
        {"130000-131000 r-xp 0 00:00 0  [vdso]", MAPPING_SPECIAL},
    };
    struct mapping_before before = {0};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        char line[100];
        struct mapping m;
        strcpy(line, rows[i].line);
        cr_assert(mapping_parse(line, &m) && mapping_kind(&m, &before) == rows[i].kind, "%s",
                  rows[i].line);
    }
}

EBB_TEST(ledger, lines_longer_than_the_buffer_are_cut)
{
    int fds[2];
    char buf[16];
    cr_assert(pipe(fds) == 0);
    static const char text[] = "one\nand one that is 7f000-8f000 rw-p 0 0:0 0 and long\ntwo\n"
                               "fifteen letters\nfifteen letters";
    cr_assert(write(fds[1], text, strlen(text)) == (ssize_t)strlen(text));
    close(fds[1]);
    struct lines lines;
    lines_init(&lines, fds[0], buf, sizeof(buf));
    cr_assert_str_eq(lines_next(&lines), "one");
    cr_assert_str_eq(lines_next(&lines), "and one that is");
    cr_assert_str_eq(lines_next(&lines), "two");
    cr_assert_str_eq(lines_next(&lines), "fifteen letters");
    cr_assert_str_eq(lines_next(&lines), "fifteen letters");
    cr_assert(lines_next(&lines) == NULL && lines.error == 0);
    close(fds[0]);
}

EBB_TEST(ledger, intervals_are_sorted_and_found)
{
    struct interval items[500];
    struct interval_list list = {.items = items, .cap = ARRAY_COUNT(items)};
    uint64_t random = 7;
    for (size_t i = 0; i < 600; i++) { // more than there is room for
        uint64_t start = (rand_splitmix64(&random) % 100000) * 10;
        interval_add(&list, start, start + 5, i);
    }
    cr_assert(list.count == 500);
    interval_sort(&list);
    for (size_t i = 1; i < list.count; i++) {
        cr_assert(items[i - 1].start <= items[i].start);
    }
    for (size_t i = 0; i < list.count; i++) {
        cr_assert(interval_find(&list, items[i].start)->start == items[i].start);
        size_t after = interval_after(&list, items[i].start + 4);
        cr_assert(items[after].start == items[i].start);
        cr_assert(interval_after(&list, items[i].end) > i);
    }
    cr_assert(interval_find(&list, 5) == NULL && interval_after(&list, UINT64_MAX) == 500);
}

// ---- residency ----

struct seen {
    uint64_t start, end; // of what is looked at
    size_t pages[64];
};

static void visit_seen(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct seen *seen = arg;
    (void)flags;
    cr_assert(start >= seen->start && end <= seen->end && start < end);
    for (uint64_t addr = start; addr < end; addr += 4096) {
        seen->pages[(addr - seen->start) / 4096]++;
    }
}

EBB_TEST(ledger, residency_by_each_means)
{
    static char buf[4096];
    if (sysconf(_SC_PAGESIZE) != 4096) {
        return; // the table below is for pages of 4 KiB
    }
    char *memory =
        mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(memory, 64 * 4096, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < 64; i += i % 3 + 1) {
        memory[i * 4096] = 1;
    }
    volatile char zero = memory[2 * 4096]; // only read: the page of zeros, not counted in RSS
    (void)zero;
    for (enum residency_how how = RESIDENCY_SCAN; how <= RESIDENCY_MINCORE; how++) {
        struct residency r;
        struct seen seen = {(uintptr_t)memory, (uintptr_t)memory + 64 * 4096, {0}};
        cr_assert(residency_open(&r, 0, 4096, buf, sizeof(buf)) == 0);
        if (how >= r.how) { // what the kernel has, and everything simpler
            r.how = how;
            cr_assert(residency_scan(&r, seen.start, seen.end, visit_seen, &seen) == 0);
            for (size_t i = 0, next = 0; i < 64; i++) {
                bool wanted = i == next || (i == 2 && how != RESIDENCY_SCAN);
                cr_assert(seen.pages[i] == wanted, "means %d, page %zu: %zu", (int)how, i,
                          seen.pages[i]);
                next += i == next ? next % 3 + 1 : 0;
            }
        }
        residency_close(&r);
    }
    munmap(memory, 64 * 4096);
}

// ---- the walk ----

static struct ledger_target target_of_us(void)
{
    struct ledger_target target;
    ledger_page_init();
    cr_assert(ledger_own_target(&target));
    target.reader.pid = getpid(); // by process_vm_readv: a wrong address is an error, not a crash
    return target;
}

static void *blocks[20000];

static void *free_third(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i += 3) {
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
    return NULL;
}

// Blocks of all sizes, some of them freed by another thread, which then ends.
static void heap_fill(void)
{
    releaser_restrict(); // no thread that gives back while we compare
    uint64_t random = 11;
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        uint64_t r = rand_splitmix64(&random);
        size_t bytes = r % 100 == 0 ? r / 100 % 400000 : r / 100 % 3000;
        blocks[i] = ebb_malloc(bytes);
        memset(blocks[i], 1, bytes);
    }
    pthread_t thread;
    cr_assert(pthread_create(&thread, NULL, free_third, NULL) == 0);
    pthread_join(thread, NULL);
    for (size_t i = 1; i < ARRAY_COUNT(blocks); i += 5) {
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
}

// Reads from outside, then from inside, which must be the same: nothing else runs.
static struct ebb_memstats outside_is_inside(void)
{
    struct ledger_target target = target_of_us();
    struct ebb_memstats outside;
    struct ledger_extra extra;
    struct ebb_memstats inside = {.size = sizeof(inside)};
    cr_assert(ledger_memstats_read(&target, &outside, &extra) == 0);
    cr_assert(ebb_memstats_read(&inside) == 0);
    cr_assert(extra.moved_count == 0 && extra.refused_count == 0);
    cr_assert(memstats_verify(&outside) == NULL);
    const uint64_t *a = &outside.alloc;
    const uint64_t *b = &inside.alloc;
    for (; a != &outside.skipped_count; a++, b++) {
        cr_assert(*a == *b, "field number %td: %llu outside, %llu inside", a - &outside.alloc,
                  (unsigned long long)*a, (unsigned long long)*b);
    }
    for (size_t i = 0; i < EBB_MEMSTATS_CLASSES; i++) {
        cr_assert(outside.by_size[i].mallocs == inside.by_size[i].mallocs &&
                      outside.by_size[i].frees == inside.by_size[i].frees &&
                      outside.by_size[i].bytes == inside.by_size[i].bytes,
                  "class %zu", i);
    }
    return outside;
}

static pthread_barrier_t halfway;

// Frees a few blocks of another thread's, too few to be sent on their way, and waits.
static void *free_some(void *arg)
{
    (void)arg;
    for (size_t i = 2; i < 40; i++) {
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
    pthread_barrier_wait(&halfway);
    pthread_barrier_wait(&halfway);
    return NULL;
}

EBB_TEST(ledger, what_is_read_from_outside_is_what_the_heap_says)
{
    heap_fill();
    outside_is_inside();
    pthread_t thread;
    pthread_barrier_init(&halfway, NULL, 2);
    cr_assert(pthread_create(&thread, NULL, free_some, NULL) == 0);
    pthread_barrier_wait(&halfway);
    struct cache *midway = NULL;
    uint64_t gathered = 0;
    for (struct cache *c = load_relaxed(&heap_main.caches); c != NULL; c = c->all_next) {
        for (size_t i = 0; i < GATHER_COUNT; i++) {
            const struct gather *g = &c->gather[i];
            if (g->span != NULL && g->limit > g->room) {
                midway = c;
                gathered += g->limit - g->room;
            }
        }
    }
    cr_assert(gathered != 0, "nothing is on its way");
    // A thread that does not run in the middle of its bracket: what it has gathered may be counted
    // twice, however often one looks.
    store_relaxed(&midway->busy, 1);
    struct ledger_target target = target_of_us();
    struct ebb_memstats stats;
    struct ledger_extra extra;
    cr_assert(ledger_memstats_read(&target, &stats, &extra) == 0);
    cr_assert(extra.moved_count >= gathered, "off by %llu of %llu",
              (unsigned long long)extra.moved_count, (unsigned long long)gathered);
    store_relaxed(&midway->busy, 0);
    outside_is_inside();
    // Nothing gathered now; but what others have freed may be on its way into the counts.
    store_relaxed(&midway->claimed, 1);
    cr_assert(ledger_memstats_read(&target, &stats, &extra) == 0);
    cr_assert(extra.moved_count != 0, "exact, while somebody acts for a thread");
    store_relaxed(&midway->claimed, 0);
    pthread_barrier_wait(&halfway);
    pthread_join(thread, NULL);
}

static struct ebb_ledger ledger_of_us(void)
{
    struct ebb_ledger ledger = {.size = sizeof(ledger)};
    ledger_page_init();
    cr_assert(ebb_ledger_read(&ledger) == 0);
    cr_assert(llabs(ledger.unexplained) <= (long long)MIB, "%lld", (long long)ledger.unexplained);
    return ledger;
}

EBB_TEST(ledger, holes_given_back_and_not)
{
    heap_init();
    sample_set_interval(&heap_main, 0); // the place of a sampled block is never touched
    releaser_restrict();
    static void *small[200000];
    for (size_t i = 0; i < ARRAY_COUNT(small); i++) {
        small[i] = ebb_malloc(64);
        memset(small[i], 1, 64);
    }
    for (size_t i = 0; i < ARRAY_COUNT(small); i++) {
        if (i % 500 != 0) {
            ebb_free(small[i]);
        }
    }
    world_flush(&heap_main, NULL); // makes holes, gives none of them back
    struct ebb_ledger before = ledger_of_us();
    cr_assert(before.holes_ready > 8 * MIB && before.holes == 0 && before.holes_back == 0);
    cr_assert(outside_is_inside().heap_holes == 0);
    releaser_release_now("test", NULL);
    struct ebb_ledger after = ledger_of_us();
    cr_assert(after.holes_ready == 0 && after.holes_back == 0);
    cr_assert(after.holes == before.holes_ready, "%llu given, %llu were ready",
              (unsigned long long)after.holes, (unsigned long long)before.holes_ready);
    cr_assert(outside_is_inside().heap_holes == after.holes);
    for (size_t i = 0; i < ARRAY_COUNT(small); i += 500) {
        ebb_free(small[i]);
    }
}

EBB_TEST(ledger, the_sum_is_rss)
{
    heap_fill();
    ledger_page_init();
    struct ebb_ledger ledger = {.size = 1};
    cr_assert(ebb_ledger_read(NULL) == -EINVAL && ebb_ledger_read(&ledger) == -EINVAL);
    ledger = ledger_of_us();
    struct ebb_memstats stats = {.size = sizeof(stats)};
    cr_assert(ebb_memstats_read(&stats) == 0);
    cr_assert(ledger.live + ledger.live_untouched == stats.heap_alloc, "%llu + %llu, not %llu",
              (unsigned long long)ledger.live, (unsigned long long)ledger.live_untouched,
              (unsigned long long)stats.heap_alloc);
    cr_assert(ledger.live > stats.heap_alloc / 2 && ledger.slack != 0 && ledger.meta_tables != 0);
    ledger_restrict();
    cr_assert(ebb_ledger_read(&ledger) == -EPERM);
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // Linux 6.1
#endif
#define HUGE_BYTES (2 * MIB)

EBB_TEST(ledger, what_huge_pages_bring_back_is_seen)
{
    releaser_restrict();
    char *block = ebb_malloc(32 * MIB);
    memset(block, 1, 32 * MIB);
    ebb_free(block);
    releaser_release_now("test", NULL);
    cr_assert(ledger_of_us().runs_back == 0);
    // A write to freed memory, and the kernel puts a huge page there.
    char *first = (char *)align_up((uintptr_t)block, HUGE_BYTES);
    madvise(first, 8 * HUGE_BYTES, MADV_HUGEPAGE);
    size_t count = 0;
    for (size_t i = 0; i < 8; i++) {
        *(volatile char *)(first + i * HUGE_BYTES) = 1;
        count += madvise(first + i * HUGE_BYTES, HUGE_BYTES, MADV_COLLAPSE) == 0;
    }
    struct ebb_ledger ledger = ledger_of_us();
    cr_assert(ledger.runs_back >= 8 * 4 * KIB, "written to after it was given back");
    cr_assert(ledger.huge_back >= count * HUGE_BYTES && ledger.runs_back >= ledger.huge_back,
              "%zu huge pages, %llu bytes seen", count, (unsigned long long)ledger.huge_back);
}

// Copies of the heap's structures, in which bits may be turned over.
struct copies {
    struct pageheap pages;
    struct heap heap;
    struct arena arena;
    struct cache cache;
};

static void copies_make(struct copies *c, struct ledger_target *target)
{
    size_t index = pageheap_main.arena_lo;
    const struct arena *arena = pageheap_arena(&pageheap_main, index);
    memcpy(&c->pages, &pageheap_main, sizeof(c->pages));
    memcpy(&c->heap, &heap_main, sizeof(c->heap));
    memcpy(&c->arena, arena, sizeof(c->arena));
    memcpy(&c->cache, load_relaxed(&heap_main.caches), sizeof(c->cache));
    c->pages.maps[index] =
        (atomic_u64 *)((uintptr_t)c->arena.map - (arena->start >> PAGE_SHIFT) * sizeof(uint64_t));
    store_relaxed(&c->heap.caches, (void *)&c->cache);
    target->page.pages = (uintptr_t)&c->pages;
    target->page.heap = (uintptr_t)&c->heap;
}

static void turn_bits(void *memory, size_t bytes, size_t count, uint64_t *random)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t r = rand_splitmix64(random);
        ((unsigned char *)memory)[r % bytes] ^= (unsigned char)(1u << (r >> 60 & 7));
    }
}

EBB_TEST(ledger, torn_readings_never_crash_and_keep_the_identities, .timeout = 60)
{
    static struct copies c;
    heap_fill();
    struct ledger_target target = target_of_us();
    uint64_t random = 5;
    size_t answers = 0;
    size_t refused = 0;
    for (int i = 0; i < 60; i++) {
        copies_make(&c, &target);
        // Records in use are few beside those there is room for.
        turn_bits(c.arena.records, c.arena.record_high * sizeof(struct span), 200, &random);
        turn_bits(c.arena.allocated, 3 * sizeof(c.arena.allocated), 100, &random);
        if (i % 4 == 1) {
            turn_bits(&c.cache, sizeof(c.cache), 20, &random);
        } else if (i % 4 == 2) {
            turn_bits(&c.heap.central, sizeof(c.heap.central), 50, &random);
            turn_bits(&c.arena, 40, 2, &random);
        } else if (i % 4 == 3) {
            turn_bits(&c.pages.stats, sizeof(c.pages.stats), 5, &random);
        }
        struct ebb_memstats stats;
        struct ebb_ledger ledger;
        struct ledger_extra extra;
        if (ledger_memstats_read(&target, &stats, &extra) == 0) {
            const char *wrong = memstats_verify(&stats);
            cr_assert(wrong == NULL, "round %d: %s", i, wrong);
            refused += extra.refused_count;
            answers++;
        }
        if (ledger_read(&target, &ledger, &stats, &extra) == 0) {
            uint64_t heap = ledger.live + ledger.slack + ledger.remote + ledger.cached +
                            ledger.ready + ledger.holes_ready + ledger.lazy + ledger.withdrawn +
                            ledger.holes_back + ledger.runs_back;
            cr_assert(heap <= stats.heap_sys, "round %d", i);
        }
    }
    cr_assert(answers > 30 && refused > 100, "%zu answers, %zu refused", answers, refused);
}

EBB_TEST(ledger, nobody_is_there)
{
    struct ledger_target target;
    cr_assert(ledger_find(&target, 1 << 30) == -ESRCH);
    // The test program has the note, linked in; here as if its library had not started.
    ledger_page_main.magic = 0;
    cr_assert(ledger_find(&target, getpid()) == -EAGAIN);
    ledger_page_init();
    cr_assert(ledger_find(&target, getpid()) == 0);
    cr_assert(target.page_addr == (uintptr_t)&ledger_page_main);
}

// Sums up what is visited; each range must lie behind the one before.
struct line_of {
    uint64_t bytes, end;
};

static void visit_in_line(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct line_of *line = arg;
    (void)flags;
    cr_assert(start >= line->end, "visited twice");
    line->bytes += end - start;
    line->end = end;
}

// Holes between all pages: more regions than the kernel collects at a time, and, with the smaller
// buffers, than one call returns.
EBB_TEST(ledger, residency_of_a_comb)
{
    static char buf[256 * 1024];
    static const size_t sizes[] = {sizeof(buf), 24576, 4096};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t count = 6000;
    char *memory =
        mmap(NULL, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(memory, count * page, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < count; i += 2) {
        memory[i * page] = 1;
    }
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct residency r;
        struct line_of line = {0, 0};
        uint64_t start = (uintptr_t)memory;
        cr_assert(residency_open(&r, 0, page, buf, sizes[i]) == 0);
        cr_assert(residency_scan(&r, start, start + count * page, visit_in_line, &line) == 0);
        cr_assert(line.bytes == count / 2 * page, "buffer of %zu: %zu pages", sizes[i],
                  (size_t)line.bytes / page);
        residency_close(&r);
    }
    munmap(memory, count * page);
}
