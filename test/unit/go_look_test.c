// SPDX-License-Identifier: MIT
// Tier  quick
//
// A Go program's file as the doctor reads it, from a file that is put together here; the same file
// cut off everywhere and with bits turned; readers on layouts and memory of chance; what is pure.
//
// Go  none.
#include "support/unit.h"

#include <dwarf.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "doctor/go_look.h"

// ---- putting a file together --------------------------------------------------------------------

struct out {
    uint8_t at[8192];
    size_t len;
};

static void put(struct out *out, const void *bytes, size_t len)
{
    cr_assert_leq(out->len + len, sizeof(out->at));
    memcpy(out->at + out->len, bytes, len);
    out->len += len;
}

static void put_number(struct out *out, uint64_t value, size_t bytes)
{
    put(out, &value, bytes);
}

static void put_text(struct out *out, const char *text)
{
    put(out, text, strlen(text) + 1);
}

#define HEAP_INUSE_ADDR 0x5000
enum { CODE_UNIT = 1, CODE_VARIABLE, CODE_STRUCT, CODE_MEMBER, CODE_BASE, CODE_TYPEDEF };

static void put_abbrev(struct out *out, unsigned code, unsigned tag, bool children,
                       const uint8_t *pairs)
{
    put_number(out, code, 1);
    put_number(out, tag, 1);
    put_number(out, children, 1);
    for (; pairs[0] != 0; pairs += 2) {
        put(out, pairs, 2);
    }
    put_number(out, 0, 2);
}

static void abbrevs_make(struct out *out)
{
    static const uint8_t unit[] = {DW_AT_name, DW_FORM_string, 0, 0};
    static const uint8_t variable[] = {
        DW_AT_name, DW_FORM_string, DW_AT_location, DW_FORM_block1, DW_AT_type, DW_FORM_ref_addr, 0,
        0};
    static const uint8_t structure[] = {
        DW_AT_name, DW_FORM_string, DW_AT_byte_size, DW_FORM_udata, 0, 0};
    static const uint8_t member[] = {DW_AT_name,
                                     DW_FORM_string,
                                     DW_AT_data_member_location,
                                     DW_FORM_udata,
                                     DW_AT_type,
                                     DW_FORM_ref_addr,
                                     0,
                                     0};
    static const uint8_t base[] = {DW_AT_name, DW_FORM_string, DW_AT_byte_size, DW_FORM_data1, 0,
                                   0};
    static const uint8_t alias[] = {DW_AT_name, DW_FORM_string, DW_AT_type, DW_FORM_ref_addr, 0, 0};
    put_abbrev(out, CODE_UNIT, DW_TAG_compile_unit, true, unit);
    put_abbrev(out, CODE_VARIABLE, DW_TAG_variable, false, variable);
    put_abbrev(out, CODE_STRUCT, DW_TAG_structure_type, true, structure);
    put_abbrev(out, CODE_MEMBER, DW_TAG_member, false, member);
    put_abbrev(out, CODE_BASE, DW_TAG_base_type, false, base);
    put_abbrev(out, CODE_TYPEDEF, DW_TAG_typedef, false, alias);
    put_number(out, 0, 1);
}

static void put_member(struct out *out, const char *name, unsigned offset, size_t type)
{
    put_number(out, CODE_MEMBER, 1);
    put_text(out, name);
    put_number(out, offset, 1);
    put_number(out, type, 4);
}

// A unit "runtime": memstats at 0x5000 - 16, with heap_inuse at 16 (through a typedef),
// heap_released at 24 and heap_sys at 32.
static void info_make(struct out *out)
{
    put_number(out, 0, 4); // the length, set below
    put_number(out, 4, 2);
    put_number(out, 0, 4);
    put_number(out, 8, 1);
    put_number(out, CODE_UNIT, 1);
    put_text(out, "runtime");
    size_t base = out->len;
    put_number(out, CODE_BASE, 1);
    put_text(out, "uint64");
    put_number(out, 8, 1);
    size_t alias = out->len;
    put_number(out, CODE_TYPEDEF, 1);
    put_text(out, "runtime.sysMemStat");
    put_number(out, base, 4);
    size_t structure = out->len;
    put_number(out, CODE_STRUCT, 1);
    put_text(out, "runtime.mstats");
    put_number(out, 40, 1);
    put_member(out, "heap_inuse", 16, alias);
    put_member(out, "heap_released", 24, base);
    put_member(out, "heap_sys", 32, base);
    put_number(out, 0, 1);
    put_number(out, CODE_VARIABLE, 1);
    put_text(out, "runtime.memstats");
    put_number(out, 9, 1);
    put_number(out, DW_OP_addr, 1);
    put_number(out, HEAP_INUSE_ADDR - 16, 8);
    put_number(out, structure, 4);
    put_number(out, 0, 1);
    uint32_t len = (uint32_t)out->len - 4;
    memcpy(out->at, &len, sizeof(len));
}

static void buildinfo_make(struct out *out)
{
    static const char version[] = "go1.19.8";
    put(out, "\xff Go buildinf:", 14);
    put_number(out, 8, 1);
    put_number(out, 2, 1);
    put_number(out, 0, 8);
    put_number(out, 0, 8);
    put_number(out, sizeof(version) - 1, 1);
    put(out, version, sizeof(version) - 1);
    put_number(out, 0, 8);
}

// One function at 0x1000 to 0x1100: main.leak, of leak.go, whose line is 30 from 0x1010 on and 29
// before. As from 1.20.
static void pclntab_make(struct out *out)
{
    enum { HEAD = 72, NAMES = HEAD, UNITS = 96, FILES = 104, VALUES = 120, FUNCTIONS = 144 };
    put_number(out, 0xfffffff1u, 4);
    put_number(out, 0, 2);
    put_number(out, 1, 1);
    put_number(out, 8, 1);
    put_number(out, 1, 8);
    put_number(out, 1, 8);
    put_number(out, 0x1000, 8);
    put_number(out, NAMES, 8);
    put_number(out, UNITS, 8);
    put_number(out, FILES, 8);
    put_number(out, VALUES, 8);
    put_number(out, FUNCTIONS, 8);
    put_text(out, "main.leak");
    out->len = UNITS;
    put_number(out, 0, 4);
    out->len = FILES;
    put_text(out, "src/leak.go");
    out->len = VALUES + 1;
    static const uint8_t lines[] = {60, 0x10, 2, 0xf0, 0x01, 0}; // +30 from -1, then +1
    put(out, lines, sizeof(lines));
    static const uint8_t files[] = {2, 0x80, 0x02, 0};
    put(out, files, sizeof(files));
    out->len = FUNCTIONS;
    put_number(out, 0, 4);
    put_number(out, 16, 4);
    put_number(out, 0x100, 4);
    put_number(out, 0, 4);
    static const uint32_t record[] = {0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0};
    put(out, record, sizeof(record));
}

#define SECTIONS 6 // and the empty first
static void file_make(struct out *out)
{
    static const char *const names[SECTIONS] = {".go.buildinfo", ".debug_info", ".debug_abbrev",
                                                ".gopclntab",    ".text",       ".shstrtab"};
    static void (*const makers[SECTIONS])(struct out *) = {buildinfo_make, info_make, abbrevs_make,
                                                           pclntab_make};
    Elf64_Ehdr head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                       .e_type = ET_EXEC,
                       .e_machine = EM_X86_64,
                       .e_version = EV_CURRENT,
                       .e_ehsize = sizeof(head),
                       .e_shentsize = sizeof(Elf64_Shdr),
                       .e_shnum = SECTIONS + 1,
                       .e_shstrndx = SECTIONS};
    Elf64_Shdr sections[SECTIONS + 1] = {{0}};
    struct out strings = {.len = 1};
    memset(out, 0, sizeof(*out));
    put(out, &head, sizeof(head));
    for (size_t i = 0; i < SECTIONS; i++) {
        struct out one = {.len = 0};
        Elf64_Shdr *section = &sections[i + 1];
        section->sh_name = (Elf64_Word)strings.len;
        put_text(&strings, names[i]);
        section->sh_type = i + 1 == SECTIONS ? SHT_STRTAB : SHT_PROGBITS;
        section->sh_addralign = 1;
        if (makers[i] != NULL) {
            makers[i](&one);
        }
        section->sh_offset = out->len;
        section->sh_size = i + 1 == SECTIONS ? strings.len : one.len;
        put(out, i + 1 == SECTIONS ? strings.at : one.at, section->sh_size);
    }
    out->len = (out->len + 7) / 8 * 8;
    head.e_shoff = out->len;
    memcpy(out->at, &head, sizeof(head));
    put(out, sections, sizeof(sections));
}

static int file_of(const uint8_t *bytes, size_t len)
{
    int fd = memfd_create("go_look", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
    return fd;
}

// ---- what is right ------------------------------------------------------------------------------

Test(go_file, version)
{
    static struct out bytes;
    struct go_file file;
    char version[32];
    file_make(&bytes);
    cr_assert(go_file_open(&file, file_of(bytes.at, bytes.len)));
    cr_assert(go_version_read(&file, version, sizeof(version)));
    cr_assert_str_eq(version, "go1.19.8");
    cr_assert_eq(go_version_minor(version), 19);
    char small[8];
    cr_assert_not(go_version_read(&file, small, sizeof(small)));
    go_file_close(&file);
}

Test(go_file, minor)
{
    cr_assert_eq(go_version_minor("go1.15.15"), 15);
    cr_assert_eq(go_version_minor("devel go1.26-abc"), 26);
    cr_assert_eq(go_version_minor("go2.1"), 0);
    cr_assert_eq(go_version_minor("go1.99999999999"), 0);
    cr_assert_eq(go_version_minor(""), 0);
}

Test(go_file, not_elf)
{
    struct go_file file;
    cr_assert_not(go_file_open(&file, file_of((const uint8_t *)"#!/bin/sh\n", 10)));
    cr_assert_not(go_file_open(&file, file_of((const uint8_t *)"", 0)));
    cr_assert_not(go_file_open(&file, -1));
}

Test(go_layout, dwarf)
{
    static struct out bytes;
    static struct go_layout layout;
    struct go_file file;
    const char *why = "";
    file_make(&bytes);
    cr_assert(go_file_open(&file, file_of(bytes.at, bytes.len)));
    cr_assert(go_layout_make(&file, 0x100000, MIB, &layout, &why), "%s", why);
    cr_assert(layout.fields[GO_HEAP_INUSE].known);
    cr_assert_eq(layout.fields[GO_HEAP_INUSE].at, 0x100000 + HEAP_INUSE_ADDR);
    cr_assert_eq(layout.fields[GO_HEAP_INUSE].size, 8);
    cr_assert_eq(layout.fields[GO_HEAP_SYS].at, 0x100000 + HEAP_INUSE_ADDR + 16);
    cr_assert_not(layout.fields[GO_NEXT_GC].known);
    cr_assert_not(go_layout_make(&file, 0, 8, &layout, &why));
    cr_assert_neq(strstr(why, "larger than"), NULL, "%s", why);
    go_file_close(&file);
}

Test(go_pcln, lines)
{
    static struct out bytes;
    struct go_file file;
    struct go_pcln pcln;
    char text[64];
    file_make(&bytes);
    cr_assert(go_file_open(&file, file_of(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0x10000));
    go_pcln_text(&pcln, 0x11008, text, sizeof(text));
    cr_assert_str_eq(text, "main.leak (leak.go:29)");
    go_pcln_text(&pcln, 0x11010, text, sizeof(text));
    cr_assert_str_eq(text, "main.leak (leak.go:30)");
    go_pcln_text(&pcln, 0x110ff, text, sizeof(text));
    cr_assert_str_eq(text, "main.leak (leak.go:30)");
    go_pcln_text(&pcln, 0x11100, text, sizeof(text));
    cr_assert_str_eq(text, "0x11100");
    go_pcln_text(&pcln, 0x10fff, text, sizeof(text));
    cr_assert_str_eq(text, "0x10fff");
    go_file_close(&file);
}

Test(go_pcln, runtime)
{
    cr_assert(go_is_runtime("runtime.gopark"));
    cr_assert(go_is_runtime("internal/poll.(*FD).Read"));
    cr_assert(go_is_runtime("sync.(*Mutex).Lock"));
    cr_assert_not(go_is_runtime("main.main"));
    cr_assert_not(go_is_runtime("runtimes/x.f"));
}

Test(go_releases, by_version_and_setting)
{
    static const struct {
        int minor;
        const char *godebug;
        bool lazily;
    } rows[] = {
        {11, NULL, false},
        {12, NULL, true},
        {15, NULL, true},
        {16, NULL, false},
        {26, NULL, false},
        {0, NULL, false},
        {15, "madvdontneed=1", false},
        {15, "gctrace=1,madvdontneed=1", false},
        {15, "madvdontneed=1,madvdontneed=0", true},
        {15, "xmadvdontneed=1", true},
        {16, "madvdontneed=0", true},
        {15, "", true},
        {15, ",,", true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        cr_expect_eq(go_releases_lazily(rows[i].minor, rows[i].godebug), rows[i].lazily, "row %zu",
                     i);
    }
}

// ---- dividing -----------------------------------------------------------------------------------

static uint64_t parts(const struct facts_heap *heap)
{
    return heap->live_bytes + heap->pinned_bytes + heap->kept_bytes + heap->lazy_bytes +
           heap->meta_bytes;
}

Test(go_divide, after_a_peak)
{
    const struct facts_go go = {.heap_inuse_bytes = 70 * MIB,
                                .heap_live_bytes = 45 * MIB,
                                .heap_idle_bytes = 260 * MIB,
                                .heap_released_bytes = 160 * MIB,
                                .stacks_bytes = 2 * MIB,
                                .madvise_free = true};
    const struct facts_pages pages = {.lazyfree_known = true, .lazyfree_bytes = 120 * MIB};
    struct facts_heap heap = {.resident_bytes = 300 * MIB};
    go_divide(&go, &pages, 292 * MIB, 0, &heap);
    cr_assert(heap.divided);
    cr_assert_eq(heap.meta_bytes, 8 * MIB);
    cr_assert_eq(heap.lazy_bytes, 120 * MIB);
    cr_assert_eq(heap.live_bytes, 47 * MIB);
    cr_assert_eq(heap.pinned_bytes, 25 * MIB);
    cr_assert_eq(heap.kept_bytes, 100 * MIB);
    cr_assert_eq(heap.released_bytes, 160 * MIB);
    // Without the kernel's count: what nothing else explains.
    const struct facts_pages blind = {.lazyfree_known = false};
    heap = (struct facts_heap){.resident_bytes = 300 * MIB};
    go_divide(&go, &blind, 292 * MIB, 0, &heap);
    cr_assert_eq(heap.lazy_bytes, 120 * MIB);
}

static uint64_t chance_state = 88172645463325252u;
static uint64_t chance(void)
{
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state;
}

Test(go_divide, never_more_than_resident)
{
    for (size_t i = 0; i < 100000; i++) {
        struct facts_go go = {.heap_inuse_bytes = chance() >> (chance() % 64),
                              .heap_live_bytes = chance() >> (chance() % 64),
                              .heap_idle_bytes = chance() >> (chance() % 64),
                              .heap_released_bytes = chance() >> (chance() % 64),
                              .stacks_bytes = chance() >> (chance() % 64),
                              .madvise_free = chance() % 2 == 0};
        struct facts_pages pages = {.lazyfree_known = chance() % 2 == 0,
                                    .lazyfree_bytes = chance() >> (chance() % 64)};
        struct facts_heap heap = {.resident_bytes = chance() % (100 * GIB)};
        go_divide(&go, &pages, chance() % (heap.resident_bytes + 1), chance() >> 20, &heap);
        cr_assert_leq(parts(&heap), heap.resident_bytes, "round %zu", i);
    }
}

// ---- what is wrong ------------------------------------------------------------------------------

static void read_all(const uint8_t *bytes, size_t len)
{
    static struct go_layout layout;
    struct go_file file;
    struct go_pcln pcln;
    char text[GO_TEXT_BYTES];
    const char *why = "";
    if (!go_file_open(&file, file_of(bytes, len))) {
        return;
    }
    go_version_read(&file, text, sizeof(text));
    go_layout_make(&file, 0, MIB, &layout, &why);
    if (go_pcln_file(&pcln, &file, 0)) {
        for (uint64_t pc = 0xff0; pc < 0x1110; pc += 7) {
            go_pcln_text(&pcln, pc, text, sizeof(text));
        }
    }
    go_file_close(&file);
}

Test(go_file, cut_off)
{
    static struct out bytes;
    file_make(&bytes);
    for (size_t len = 0; len <= bytes.len; len++) {
        read_all(bytes.at, len);
    }
}

Test(go_file, turned_bits)
{
    static struct out bytes;
    static struct out bad;
    file_make(&bytes);
    for (size_t i = 0; i < bytes.len * 8; i++) {
        bad = bytes;
        bad.at[i / 8] ^= (uint8_t)(1u << (i % 8));
        read_all(bad.at, bad.len);
    }
    for (size_t i = 0; i < 5000; i++) {
        bad = bytes;
        for (size_t k = chance() % 20; k > 0; k--) {
            bad.at[chance() % bad.len] = (uint8_t)(chance() % 3 == 0 ? 0xff : chance());
        }
        read_all(bad.at, bad.len);
    }
}

#define GARBAGE_WORDS ((size_t)1 << 15)

static uint64_t pointer_into(const uint64_t *garbage)
{
    return (uint64_t)(uintptr_t)garbage + chance() % (GARBAGE_WORDS * 8);
}

// A layout that leads into memory full of pointers to itself, small numbers and large ones.
static void layout_chance(struct go_layout *layout, uint64_t *garbage)
{
    for (size_t i = 0; i < GARBAGE_WORDS; i++) {
        uint64_t kind = chance() % 4;
        garbage[i] = kind == 0   ? pointer_into(garbage)
                     : kind == 1 ? chance()
                     : kind == 2 ? chance() % 2000
                                 : 0;
    }
    for (size_t i = 0; i < GO_FIELD_COUNT; i++) {
        bool member = i >= GO_P_MCACHE && i <= GO_SPAN_COUNT_BEFORE;
        member = member || (i >= GO_G_STATUS && i <= GO_G_SYSCALL_SP) || i >= GO_BUCKET_NEXT;
        layout->fields[i] = (struct go_value){
            .at = member ? chance() % 500 : pointer_into(garbage),
            .size = chance() % 8 == 0 ? chance() >> (chance() % 64) : 8,
            .known = chance() % 16 != 0,
        };
    }
}

Test(go_readers, garbage)
{
    static struct out bytes;
    static struct go_layout layout;
    static struct facts facts;
    static uint64_t garbage[GARBAGE_WORDS];
    const struct doctor_options options = {.exact = true};
    struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    struct go_pcln pcln;
    uint64_t count;
    file_make(&bytes);
    cr_assert(go_file_open(&file, file_of(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0));
    for (size_t i = 0; i < 300; i++) {
        memset(&facts, 0, sizeof(facts));
        layout_chance(&layout, garbage);
        go_stats_read(&exam, &layout, &facts.go);
        go_count_read(&exam, &layout, &count);
        go_timers_read(&exam, &layout, &count);
        go_routines_read(&exam, &layout, &pcln);
        go_profile_read(&exam, &layout, &pcln);
        cr_assert_leq(facts.go.groups_count, GO_GROUPS_MAX);
        cr_assert_leq(facts.sites_count, SITES_MAX);
    }
    go_file_close(&file);
}
