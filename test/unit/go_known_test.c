// SPDX-License-Identifier: MIT
// Tier  quick
//
// Layouts of known versions of Go: the table itself, references in code that is put together here,
// votes, and the check on a runtime that is made up in our own memory, whole and with one thing
// wrong at a time.
//
// Go  none.
#include "support/unit.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "doctor/go_look.h"

// ---- the table ----------------------------------------------------------------------------------

Test(go_known, table)
{
    static const int minors[] = {15, 19, 21, 22, 23, 24, 25, 26, 27};
    static const enum go_field needed[] = {
        GO_HEAP_INUSE,   GO_HEAP_RELEASED, GO_NEXT_GC, GO_ARENAS,   GO_ARENAS_LEN,
        GO_ALLGS,        GO_ALLP,          GO_P_ID,    GO_P_MCACHE, GO_MCACHE_ALLOC,
        GO_G_STATUS,     GO_G_STARTPC,     GO_G_PC,    GO_P_TIMERS, GO_BUCKETS,
        GO_PROFILE_RATE, GO_BUCKET,        GO_REASONS, GO_NGSYS,    GO_MODULE_TABLE,
        GO_MODULE_TEXT,  GO_RECORD_ALLOCS};
    for (size_t i = 0; i < ARRAY_COUNT(minors); i++) {
        const struct go_shape *shape = go_known_shape(minors[i]);
        cr_assert_not_null(shape, "1.%d", minors[i]);
        for (size_t k = 0; k < ARRAY_COUNT(needed); k++) {
            cr_expect_lt(shape->parts[needed[k]].root, GO_ROOTS, "1.%d field %d", minors[i],
                         (int)needed[k]);
        }
        // From 1.19 on the controller counts, before it memstats.
        cr_expect_eq(shape->parts[GO_HEAP_INUSE].root,
                     minors[i] < 19 ? GO_ROOT_MEMSTATS : GO_ROOT_CONTROLLER);
        cr_expect_eq(shape->parts[GO_HEAP_IDLE].root < GO_ROOTS, minors[i] < 16);
    }
    cr_assert_null(go_known_shape(11));
    cr_assert_null(go_known_shape(99));
    cr_assert_null(go_known_shape(0));
}

Test(go_known, join)
{
    struct go_shape shape;
    static struct go_layout layout;
    uint64_t addrs[GO_VARIABLES] = {[GO_ROOT_MEMSTATS] = 0x1000};
    for (size_t i = 0; i < GO_FIELD_COUNT; i++) {
        shape.parts[i] = (struct go_part){GO_ROOT_NONE, 0, 0};
    }
    shape.parts[GO_HEAP_SYS] = (struct go_part){GO_ROOT_MEMSTATS, 24, 8};
    shape.parts[GO_NGSYS] = (struct go_part){GO_ROOT_SCHED, 8, 4};
    shape.parts[GO_G_STATUS] = (struct go_part){GO_ROOT_G, 144, 4};
    go_layout_join(&layout, &shape, addrs, 0x500000);
    cr_assert(layout.fields[GO_HEAP_SYS].known);
    cr_assert_eq(layout.fields[GO_HEAP_SYS].at, 0x501018);
    cr_assert_not(layout.fields[GO_NGSYS].known);
    cr_assert(layout.fields[GO_G_STATUS].known);
    cr_assert_eq(layout.fields[GO_G_STATUS].at, 144);
    cr_assert_not(layout.fields[GO_ALLGS].known);
}

// ---- code ---------------------------------------------------------------------------------------

#define CODE_ADDR UINT64_C(0x400000)
#define DATA_ADDR UINT64_C(0x500000)
#define DATA_BYTES UINT64_C(0x10000)

// A file of two segments: code, and data that can be written; they have no contents here.
static void file_make(struct go_file *file, uint64_t code_addr, uint64_t code_bytes)
{
    struct {
        Elf64_Ehdr head;
        Elf64_Phdr parts[2];
    } bytes = {
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_X86_64,
                 .e_version = EV_CURRENT,
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phoff = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .parts = {{.p_type = PT_LOAD,
                   .p_flags = PF_R | PF_X,
                   .p_vaddr = code_addr,
                   .p_memsz = code_bytes},
                  {.p_type = PT_LOAD,
                   .p_flags = PF_R | PF_W,
                   .p_vaddr = DATA_ADDR,
                   .p_memsz = DATA_BYTES}},
    };
    int fd = memfd_create("go_known", MFD_CLOEXEC);
    cr_assert_eq(write(fd, &bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    cr_assert(go_file_open(file, fd));
}

Test(go_known, segments)
{
    struct go_file file;
    file_make(&file, CODE_ADDR, 0x1000);
    cr_assert(go_segments_hold(&file, CODE_ADDR, GO_SEGMENT_CODE));
    cr_assert_not(go_segments_hold(&file, CODE_ADDR + 0x1000, GO_SEGMENT_CODE));
    cr_assert_not(go_segments_hold(&file, CODE_ADDR, GO_SEGMENT_WRITTEN));
    cr_assert(go_segments_hold(&file, DATA_ADDR + DATA_BYTES - 1, GO_SEGMENT_WRITTEN));
    cr_assert_not(go_segments_hold(&file, DATA_ADDR - 1, GO_SEGMENT_WRITTEN));
    go_file_close(&file);
}

#if defined(__x86_64__)

static size_t put(uint8_t *code, size_t at, const uint8_t *op, size_t op_bytes, uint64_t target,
                  size_t constant_bytes)
{
    memcpy(code + at, op, op_bytes);
    uint64_t end = CODE_ADDR + at + op_bytes + 4 + constant_bytes;
    int32_t distance = (int32_t)(target - end);
    memcpy(code + at + op_bytes, &distance, sizeof(distance));
    memset(code + at + op_bytes + 4, 0x11, constant_bytes);
    return at + op_bytes + 4 + constant_bytes;
}

Test(go_known, references)
{
    static const struct {
        uint8_t op[4];
        size_t bytes, constant_bytes;
    } rows[] = {
        {{0x48, 0x8b, 0x05}, 3, 0},       // mov
        {{0x48, 0x8d, 0x3d}, 3, 0},       // lea
        {{0x83, 0x3d}, 2, 1},             // cmp with a byte
        {{0x80, 0x3d}, 2, 1},             // cmp of a byte
        {{0x48, 0x81, 0x3d}, 3, 4},       // cmp with a word
        {{0xc7, 0x05}, 2, 4},             // mov of a constant
        {{0x66, 0xc7, 0x05}, 3, 2},       // of two bytes
        {{0xf6, 0x05}, 2, 1},             // test
        {{0x48, 0xf7, 0x1d}, 3, 0},       // neg
        {{0xf0, 0x0f, 0xb1, 0x0d}, 4, 0}, // cmpxchg
        {{0xf0, 0x0f, 0xc1, 0x05}, 4, 0}, // xadd, no shift
    };
    uint8_t code[256];
    uint64_t found[32];
    struct go_file file;
    size_t at = 0;
    memset(code, 0x90, sizeof(code));
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        at = put(code, at, rows[i].op, rows[i].bytes, DATA_ADDR + 8 * i, rows[i].constant_bytes);
    }
    at = put(code, at, rows[0].op, 3, DATA_ADDR, 0);              // once more
    at = put(code, at, rows[0].op, 3, DATA_ADDR + DATA_BYTES, 0); // outside
    file_make(&file, CODE_ADDR, 0x1000);
    size_t count = go_references(&file, code, at, CODE_ADDR, found, ARRAY_COUNT(found));
    cr_assert_eq(count, ARRAY_COUNT(rows), "%zu", count);
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(found[i], DATA_ADDR + 8 * i, "row %zu", i);
    }
    cr_assert_eq(go_references(&file, code, at, CODE_ADDR, found, 3), 3);
    for (size_t len = 0; len < 8; len++) {
        go_references(&file, code, len, CODE_ADDR, found, ARRAY_COUNT(found));
    }
    go_file_close(&file);
}

#elif defined(__aarch64__)

Test(go_known, references)
{
    // adrp x27, DATA_ADDR's page; add; ldr x; ldr w; strb; then adrp with a stranger behind it.
    uint32_t page = (uint32_t)((DATA_ADDR - CODE_ADDR) >> 12);
    uint32_t adrp = 0x90000000u | (page & 3) << 29 | (page >> 2) << 5 | 27;
    uint32_t with = 27u << 5;
    const uint32_t code[] = {
        adrp, 0x91000000u | 8u << 10 | with,   adrp, 0xf9400000u | 2u << 10 | with,
        adrp, 0xb9400000u | 6u << 10 | with,   adrp, 0x39000000u | 32u << 10 | with,
        adrp, 0xf9400000u | 9u << 10 | 1u << 5};
    uint64_t found[32];
    struct go_file file;
    file_make(&file, CODE_ADDR, 0x1000);
    size_t count = go_references(&file, (const uint8_t *)code, sizeof(code), CODE_ADDR, found, 32);
    cr_assert_eq(count, 4);
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(found[i], DATA_ADDR + 8 * (i + 1), "row %zu", i);
    }
    go_file_close(&file);
}

#endif

Test(go_known, vote)
{
    uint64_t a[] = {0x1008, 0x2008};
    uint64_t b[] = {0x3000, 0x1000, 0x2008};
    uint64_t c[] = {0x1000};
    static const struct go_witness witnesses[] = {{GO_ROOT_SCHED, 8, "a"}, {GO_ROOT_SCHED, 0, "b"},
                                                  {GO_ROOT_SCHED, 0, "c"}, {GO_ROOT_ALLP, 0, "b"},
                                                  {GO_ROOT_RATE, 0, "c"},  {GO_ROOT_DEBUG, 0, "d"}};
    const struct go_told told[] = {{2, a}, {3, b}, {1, c}, {3, b}, {1, c}, {0, NULL}};
    size_t count = ARRAY_COUNT(witnesses);
    cr_assert_eq(go_vote(witnesses, told, count, GO_ROOT_SCHED), 0x1000);
    cr_assert_eq(go_vote(witnesses, told, count, GO_ROOT_ALLP), 0); // three of one vote each
    cr_assert_eq(go_vote(witnesses, told, count, GO_ROOT_RATE), 0x1000);
    cr_assert_eq(go_vote(witnesses, told, count, GO_ROOT_DEBUG), 0);
    cr_assert_eq(go_vote(witnesses, told, count, GO_ROOT_MHEAP), 0);
}

// ---- a runtime in our own memory ----------------------------------------------------------------

#define GS 12
#define PS 3
#define ARENA (64 * MIB)

struct made {
    uint64_t heap_free, heap_inuse, heap_released, stacks, total_alloc, total_free;
    uint64_t arenas[2], arenas_at, arenas_len;
    uint64_t allp[PS], allp_at, allp_len, allgs[GS], allgs_at, allgs_len;
    uint64_t ngsys, free_count, rate, buckets;
    uint64_t reasons[16];
    struct {
        uint64_t id, mcache, free_count, timers;
    } ps[PS];
    uint64_t mcache[8];
    struct {
        uint64_t nelems, size;
    } span;
    struct {
        uint64_t status, reason, lo, hi, sp, pc, startpc;
    } gs[GS];
    struct {
        uint64_t next, type, depth;
    } bucket[2];
};
static struct made made;
static struct go_layout made_layout;
static uint64_t made_arena;

static uint64_t addr_of(const void *at)
{
    return (uint64_t)(uintptr_t)at;
}

#define ADDR(member) addr_of(&made.member)
#define OFFSET(type, member) (addr_of(&made.type.member) - addr_of(&made.type))

static void made_layout_set(enum go_field field, uint64_t at, uint64_t size)
{
    made_layout.fields[field] = (struct go_value){at, size, true};
}

static void layout_fill(void)
{
    const struct {
        enum go_field field;
        uint64_t at;
    } rows[] = {
        {GO_HEAP_FREE, ADDR(heap_free)},
        {GO_HEAP_INUSE, ADDR(heap_inuse)},
        {GO_HEAP_RELEASED, ADDR(heap_released)},
        {GO_STACKS_INUSE, ADDR(stacks)},
        {GO_TOTAL_ALLOC, ADDR(total_alloc)},
        {GO_TOTAL_FREE, ADDR(total_free)},
        {GO_ARENAS, ADDR(arenas_at)},
        {GO_ARENAS_LEN, ADDR(arenas_len)},
        {GO_ALLP, ADDR(allp_at)},
        {GO_ALLP_LEN, ADDR(allp_len)},
        {GO_ALLGS, ADDR(allgs_at)},
        {GO_ALLGS_LEN, ADDR(allgs_len)},
        {GO_NGSYS, ADDR(ngsys)},
        {GO_SCHED_FREE, ADDR(free_count)},
        {GO_PROFILE_RATE, ADDR(rate)},
        {GO_BUCKETS, ADDR(buckets)},
        {GO_P_ID, OFFSET(ps[0], id)},
        {GO_P_MCACHE, OFFSET(ps[0], mcache)},
        {GO_P_FREE, OFFSET(ps[0], free_count)},
        {GO_P_TIMERS, OFFSET(ps[0], timers)},
        {GO_SPAN_NELEMS, OFFSET(span, nelems)},
        {GO_SPAN_ELEM_SIZE, OFFSET(span, size)},
        {GO_G_STATUS, OFFSET(gs[0], status)},
        {GO_G_REASON, OFFSET(gs[0], reason)},
        {GO_G_STACK_LO, OFFSET(gs[0], lo)},
        {GO_G_STACK_HI, OFFSET(gs[0], hi)},
        {GO_G_SP, OFFSET(gs[0], sp)},
        {GO_G_PC, OFFSET(gs[0], pc)},
        {GO_G_STARTPC, OFFSET(gs[0], startpc)},
        {GO_BUCKET_NEXT, OFFSET(bucket[0], next)},
        {GO_BUCKET_TYPE, OFFSET(bucket[0], type)},
        {GO_BUCKET_DEPTH, OFFSET(bucket[0], depth)},
    };
    made_layout = (struct go_layout){.minor = 26};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        made_layout_set(rows[i].field, rows[i].at, 8);
    }
    made_layout_set(GO_MCACHE_ALLOC, 0, sizeof(made.mcache));
    made_layout_set(GO_REASONS, ADDR(reasons), sizeof(made.reasons));
}

static void made_fill(void)
{
    made = (struct made){
        .heap_free = 12 * MIB,
        .heap_inuse = 3 * MIB + 512 * KIB,
        .heap_released = 64 * KIB,
        .stacks = 448 * KIB,
        .total_alloc = 9 * MIB,
        .total_free = 7 * MIB,
        .arenas_at = ADDR(arenas),
        .arenas_len = 2,
        .allp_at = ADDR(allp),
        .allp_len = PS,
        .allgs_at = ADDR(allgs),
        .allgs_len = GS,
        .ngsys = 3,
        .rate = 512 * KIB,
        .buckets = ADDR(bucket[1]),
        .span = {128, 64},
    };
    for (size_t i = 0; i < 2; i++) {
#if defined(__x86_64__)
        made.arenas[i] = (made_arena - UINT64_C(0xffff800000000000)) / ARENA + i;
#else
        made.arenas[i] = made_arena / ARENA + i;
#endif
    }
    for (size_t i = 0; i < ARRAY_COUNT(made.mcache); i++) {
        made.mcache[i] = ADDR(span);
    }
    for (size_t i = 0; i < PS; i++) {
        made.allp[i] = ADDR(ps[i]);
        made.ps[i].id = i;
        made.ps[i].mcache = ADDR(mcache);
    }
    for (size_t i = 0; i < GS; i++) {
        made.allgs[i] = ADDR(gs[i]);
        made.gs[i].status = i == 2 ? 6 : 4;
        made.gs[i].lo = 0xc000000000 + i * 4096;
        made.gs[i].hi = made.gs[i].lo + 4096;
        made.gs[i].sp = made.gs[i].hi - 200;
        made.gs[i].pc = CODE_ADDR + 64;
        made.gs[i].startpc = CODE_ADDR + 128;
    }
    made.reasons[3] = 16;
    made.bucket[0].type = 1;
    made.bucket[1].type = 1;
    made.bucket[1].depth = 5;
    made.bucket[1].next = ADDR(bucket[0]);
}

// What the check says of it. Two arenas are mapped from made_arena on.
static enum go_trust checked(void)
{
    static struct facts facts;
    const struct doctor_options options = {.exact = true};
    struct vma vma = {.start = made_arena, .end = made_arena + 2 * ARENA, .path = ""};
    const struct exam exam = {.facts = &facts,
                              .options = &options,
                              .reader = {.pid = getpid()},
                              .vmas = &vma,
                              .vmas_count = 1};
    struct go_file file;
    file_make(&file, CODE_ADDR, 0x1000);
    layout_fill();
    enum go_trust trust = go_layout_check(&exam, &file, 0, &made_layout);
    go_file_close(&file);
    return trust;
}

static void check_init(void)
{
    made_arena = 0xc000000000;
    made_fill();
}

Test(go_check, holds, .init = check_init)
{
    cr_assert_eq(checked(), GO_TRUST_ALL);
    cr_assert(made_layout.fields[GO_ALLGS].known);
    cr_assert(made_layout.fields[GO_P_TIMERS].known);
    cr_assert(made_layout.fields[GO_BUCKETS].known);
}

// One word is wrong, and with it the counters of the heap, or all.
Test(go_check, refuses, .init = check_init)
{
    const struct {
        uint64_t *at;
        uint64_t value;
    } rows[] = {
        {&made.heap_inuse, 0},
        {&made.heap_inuse, 3 * MIB + 512 * KIB + 8},
        {&made.heap_inuse, 3 * MIB + 504 * KIB},
        {&made.heap_free, UINT64_MAX - 8191},
        {&made.heap_released, 4096},
        {&made.stacks, 449 * KIB},
        {&made.total_alloc, 900 * MIB},
        {&made.arenas_len, 0},
        {&made.arenas_at, 8},
        {&made.arenas[1], 7},
        {&made.allp_len, 0},
        {&made.allp_at, 8},
        {&made.allp[1], 8},
        {&made.ps[2].id, 3},
        {&made.ps[1].mcache, 8},
        {&made.mcache[2], 8},
        {&made.span.size, 12},
        {&made.span.size, MIB},
        {&made.span.nelems, UINT32_MAX},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t kept = *rows[i].at;
        *rows[i].at = rows[i].value;
        cr_expect_eq(checked(), GO_TRUST_NONE, "row %zu", i);
        *rows[i].at = kept;
    }
    cr_assert_eq(checked(), GO_TRUST_ALL);
}

// What is wrong concerns a part: that part is forgotten.
Test(go_check, forgets, .init = check_init)
{
    const struct {
        uint64_t *at;
        uint64_t value;
        enum go_field field;
    } rows[] = {
        {&made.allgs_at, 8, GO_ALLGS},
        {&made.allgs[3], 8, GO_G_STATUS},
        {&made.gs[1].status, 77, GO_ALLGS},
        {&made.gs[1].hi, 0xc000002800, GO_ALLGS},
        {&made.gs[1].sp, 0x1000, GO_ALLGS},
        {&made.gs[1].startpc, 0xc000003000, GO_ALLGS},
        {&made.gs[1].pc, 5, GO_ALLGS},
        {&made.ngsys, 100, GO_NGSYS},
        {&made.free_count, UINT32_MAX, GO_SCHED_FREE},
        {&made.rate, UINT64_MAX / 2, GO_PROFILE_RATE},
        {&made.buckets, 8, GO_BUCKETS},
        {&made.bucket[0].type, 4, GO_BUCKETS},
        {&made.bucket[1].depth, 100000, GO_RECORD_ALLOCS},
        {&made.reasons[3], UINT32_MAX, GO_REASONS},
        {&made.ps[1].timers, UINT64_MAX / 2, GO_P_TIMERS},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t kept = *rows[i].at;
        *rows[i].at = rows[i].value;
        cr_expect_eq(checked(), GO_TRUST_SOME, "row %zu", i);
        cr_expect_not(made_layout.fields[rows[i].field].known, "row %zu", i);
        cr_expect(made_layout.fields[GO_HEAP_INUSE].known, "row %zu", i);
        *rows[i].at = kept;
    }
}
