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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "doctor/go_look.h"
#include "doctor/parts.h"
#include "os/clock.h"
#include "support/gofile.h"

// ---- what is right ------------------------------------------------------------------------------

Test(go_file, version)
{
    static struct gofile bytes;
    struct go_file file;
    char version[32];
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
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
    cr_assert_not(go_file_open(&file, gofile_fd((const uint8_t *)"#!/bin/sh\n", 10)));
    cr_assert_not(go_file_open(&file, gofile_fd((const uint8_t *)"", 0)));
    cr_assert_not(go_file_open(&file, -1));
}

Test(go_layout, dwarf)
{
    static struct gofile bytes;
    static struct go_layout layout;
    struct go_file file;
    const char *why = "";
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_layout_make(&file, 0x100000, MIB, &layout, &why), "%s", why);
    cr_assert(layout.fields[GO_HEAP_INUSE].known);
    cr_assert_eq(layout.fields[GO_HEAP_INUSE].at, 0x100000 + HEAP_INUSE_ADDR);
    cr_assert_eq(layout.fields[GO_HEAP_INUSE].size, 8);
    cr_assert_eq(layout.fields[GO_HEAP_SYS].at, 0x100000 + HEAP_INUSE_ADDR + 16);
    cr_assert_not(layout.fields[GO_NEXT_GC].known);
    cr_assert_not(go_layout_make(&file, 0, 8, &layout, &why));
    cr_assert_neq(strstr(why, "larger than"), NULL, "%s", why);
    go_file_close(&file);
    // Abbreviations and strings count, too.
    memcpy(memmem(bytes.at, bytes.len, ".go.buildinfo", 14), ".debug_str", 11);
    uint64_t all = gofile_section(&bytes, INFO)->sh_size +
                   gofile_section(&bytes, ABBREVS)->sh_size +
                   gofile_section(&bytes, BUILDINFO)->sh_size;
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert_not(go_layout_make(&file, 0, all - 1, &layout, &why));
    cr_assert_neq(strstr(why, "larger than"), NULL, "%s", why);
    cr_assert(go_layout_make(&file, 0, all, &layout, &why), "%s", why);
    go_file_close(&file);
}

Test(go_pcln, lines)
{
    static struct gofile bytes;
    struct go_file file;
    struct go_pcln pcln;
    char text[64];
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0x10000, NULL));
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
    struct go_function function;
    cr_assert(go_pcln_function(&pcln, 0, &function));
    cr_assert_str_eq(function.name, "main.leak");
    cr_assert_eq(function.addr, 0x1000);
    cr_assert_eq(function.bytes, 0x100);
    cr_assert_not(go_pcln_function(&pcln, 1, &function));
    go_pcln_close(&pcln);
    go_file_close(&file);
}

Test(go_pcln, inlined)
{
    static struct gofile bytes;
    struct go_file file;
    struct go_pcln pcln;
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0x10000, NULL));
    cr_assert_str_eq(go_pcln_name(&pcln, 0x11020), "main.leak");
    pcln.inlines = LOAD_ADDR + gofile_section(&bytes, NODES)->sh_offset;
    cr_assert_str_eq(go_pcln_name(&pcln, 0x11020), "sync.f");
    cr_assert_str_eq(go_pcln_name(&pcln, 0x11040), "main.leak");
    cr_assert_eq(go_pcln_own(&pcln, 0x11020), 0x11008);
    cr_assert_eq(go_pcln_own(&pcln, 0x11040), 0x11040);
    cr_assert_eq(go_pcln_own(&pcln, 0x11100), 0);
    cr_assert_eq(go_pcln_frame_bytes(&pcln, 0x11040), 24);
    cr_assert_eq(go_pcln_frame_bytes(&pcln, 0x11100), UINT64_MAX);
    go_pcln_close(&pcln);
    go_file_close(&file);
}

// 0x9b begins a command of terminals that know eight bits.
Test(go_pcln, commands_no_terminal)
{
    static struct gofile bytes;
    struct go_file file;
    struct go_pcln pcln;
    char text[64];
    gofile_make(&bytes);
    uint8_t *name = memmem(bytes.at, bytes.len, "main.leak", 9);
    cr_assert_not_null(name);
    memcpy(name + 5, "\x1b\x9b\xc3\xa9", 4);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0, NULL));
    go_pcln_text(&pcln, 0x1008, text, sizeof(text));
    cr_assert_str_eq(text, "main.???? (leak.go:29)");
    go_pcln_close(&pcln);
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

// ---- what is wrong ------------------------------------------------------------------------------

static uint64_t chance(void)
{
    static uint64_t state;
    state = state == 0 ? frame_seed() : state;
    return frame_random(&state);
}

static bool any_known(const struct go_layout *layout)
{
    bool known = false;
    for (size_t i = 0; i < GO_FIELD_COUNT; i++) {
        known |= layout->fields[i].known;
    }
    return known;
}

static uint64_t nodes_offset; // of the file before it was damaged

static void read_all(const uint8_t *bytes, size_t len)
{
    static struct go_layout layout;
    static struct facts facts;
    const struct doctor_options options = {.exact = true};
    const struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    struct go_pcln pcln;
    char text[GO_TEXT_BYTES];
    const char *why = "";
    if (!go_file_open(&file, gofile_fd(bytes, len))) {
        return;
    }
    go_version_read(&file, text, sizeof(text));
    go_layout_make(&file, 0, MIB, &layout, &why);
    if (go_pcln_file(&pcln, &file, 0, NULL)) {
        pcln.inlines = LOAD_ADDR + nodes_offset;
        for (uint64_t pc = 0xff0; pc < 0x1110; pc += 7) {
            go_pcln_text(&pcln, pc, text, sizeof(text));
            go_pcln_own(&pcln, pc);
            go_pcln_frame_bytes(&pcln, pc);
        }
        layout.minor = 19;
        cr_assert_eq(go_known_layout(&exam, &file, &pcln, &layout, &why), GO_TRUST_NONE);
        cr_assert_not(any_known(&layout));
        go_pcln_close(&pcln);
    }
    go_file_close(&file);
}

Test(go_file, cut_off)
{
    static struct gofile bytes;
    gofile_make(&bytes);
    nodes_offset = gofile_section(&bytes, NODES)->sh_offset;
    for (size_t len = 0; len <= bytes.len; len++) {
        read_all(bytes.at, len);
    }
}

Test(go_file, turned_bits)
{
    static struct gofile bytes;
    static struct gofile bad;
    gofile_make(&bytes);
    nodes_offset = gofile_section(&bytes, NODES)->sh_offset;
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

// What an earlier process left in the layout does not stay.
Test(go_known, forgets_what_was)
{
    static struct gofile bytes;
    static struct go_layout layout;
    static struct facts facts;
    const struct doctor_options options = {.exact = true};
    const struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    struct go_pcln pcln;
    const char *why = "";
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0, NULL));
    static const int minors[] = {99, 19};
    for (size_t i = 0; i < ARRAY_COUNT(minors); i++) {
        layout.minor = minors[i];
        layout.fields[GO_ARENAS] = (struct go_value){0x1000, 8, true};
        cr_assert_eq(go_known_layout(&exam, &file, &pcln, &layout, &why), GO_TRUST_NONE);
        cr_assert_not(any_known(&layout), "1.%d", minors[i]);
        cr_assert_eq(layout.minor, minors[i]);
    }
    cr_assert_neq(strstr(why, "contradict"), NULL, "%s", why);
    go_pcln_close(&pcln);
    go_file_close(&file);
}

// ---- what is large ------------------------------------------------------------------------------

#define HOLE_BYTES GIB
#define LITTLE_BYTES (64 * MIB)

// A file with a hole behind it, of HOLE_BYTES.
static int hollow_of(const struct gofile *bytes)
{
    int fd = gofile_fd(bytes->at, bytes->len);
    cr_assert_eq(ftruncate(fd, (off_t)(bytes->len + HOLE_BYTES)), 0);
    return fd;
}

static uint64_t peak_bytes(void)
{
    struct rusage usage;
    cr_assert_eq(getrusage(RUSAGE_SELF, &usage), 0);
    return (uint64_t)usage.ru_maxrss * KIB;
}

// A section claims the hole, with some flags, and is then asked for.
Test(go_file, sections_of_nothing)
{
    static const struct {
        size_t section;
        uint64_t flags;
        const char *named, *asked; // named: instead of ".debug_info"
    } rows[] = {
        {NAMES, 0, ".debug_info", ".debug_info"},
        {NAMES, SHF_COMPRESSED, ".debug_info", ".debug_info"},
        {INFO, 0, ".debug_info", ".debug_info"},
        {INFO, SHF_COMPRESSED, ".debug_info", ".debug_info"},
        {INFO, 0, ".zdebug_inf", ".debug_inf"},
    };
    static struct gofile bytes;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct go_file file;
        struct go_bytes section;
        char version[32];
        gofile_make(&bytes);
        memcpy(memmem(bytes.at, bytes.len, ".debug_info", 12), rows[i].named, 12);
        Elf64_Shdr *header = gofile_section(&bytes, rows[i].section);
        header->sh_offset = bytes.len;
        header->sh_size = HOLE_BYTES;
        header->sh_flags = rows[i].flags;
        uint64_t before = peak_bytes();
        cr_assert(go_file_open(&file, hollow_of(&bytes)));
        go_version_read(&file, version, sizeof(version));
        uint64_t size = go_section_size(&file, rows[i].asked, MIB);
        cr_expect(rows[i].section == NAMES ? size == 0 : size > MIB, "row %zu", i);
        cr_expect_not(go_section(&file, rows[i].asked, MIB, &section), "row %zu", i);
        go_file_close(&file);
        cr_expect_lt(peak_bytes() - before, LITTLE_BYTES, "row %zu", i);
    }
}

// As many sections as the file has room for: their number is where the head has no room for it.
Test(go_file, sections_without_number)
{
    static struct gofile bytes;
    struct go_file file;
    gofile_make(&bytes);
    Elf64_Ehdr *head = (Elf64_Ehdr *)(void *)bytes.at;
    head->e_shnum = 0;
    gofile_section(&bytes, 0)[-1].sh_size = HOLE_BYTES / sizeof(Elf64_Shdr);
    uint64_t before = peak_bytes();
    cr_expect_not(go_file_open(&file, hollow_of(&bytes)));
    cr_expect_lt(peak_bytes() - before, LITTLE_BYTES);
}

Test(go_file, segments_without_end)
{
    static struct gofile bytes;
    static struct gofile many;
    struct go_file file;
    for (size_t count = GO_LOADS_MAX; count <= GO_LOADS_MAX + 1; count++) {
        gofile_make(&bytes);
        many = bytes;
        Elf64_Ehdr *head = (Elf64_Ehdr *)(void *)many.at;
        head->e_phoff = many.len;
        head->e_phnum = (Elf64_Half)count;
        for (size_t i = 0; i < count; i++) {
            gofile_put(&many, bytes.at + sizeof(*head), sizeof(Elf64_Phdr));
        }
        bool opened = go_file_open(&file, gofile_fd(many.at, many.len));
        cr_expect_eq(opened, count <= GO_LOADS_MAX, "%zu", count);
        if (opened) {
            go_file_close(&file);
        }
    }
}

Test(go_file, section_without_name)
{
    static struct gofile bytes;
    struct go_file file;
    gofile_make(&bytes);
    Elf64_Shdr *header = gofile_section(&bytes, BUILDINFO);
    header->sh_name = 0;
    memcpy(bytes.at + header->sh_offset, "ZLIB\0\0\0\0\0\0\0\5", 12);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert_eq(go_section_size(&file, ".text", MIB), gofile_section(&bytes, NODES)->sh_size);
    cr_assert_eq(go_section_size(&file, ".data", MIB), 0);
    go_file_close(&file);
}

// A section that says it has no bytes in the file has none to be read.
Test(go_file, sections_without_bytes)
{
    static struct gofile bytes;
    static const size_t sections[] = {NAMES, INFO};
    for (size_t i = 0; i < ARRAY_COUNT(sections); i++) {
        struct go_file file;
        struct go_bytes section;
        gofile_make(&bytes);
        gofile_section(&bytes, sections[i])->sh_type = SHT_NOBITS;
        cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
        cr_expect_not(go_section(&file, ".debug_info", MIB, &section), "section %zu", sections[i]);
        go_file_close(&file);
    }
}

static void symbol_count(void *arg, const char *name, uint64_t value)
{
    (void)name, (void)value;
    ++*(size_t *)arg;
}

// Few symbols that claim to be huge, few whose names claim the hole, or to have no bytes.
Test(go_file, symbols_of_nothing)
{
    static struct gofile bytes;
    static struct facts facts;
    const struct doctor_options options = {.root = "", .exact = true};
    const struct exam exam = {.facts = &facts, .options = &options};
    facts.pid = getpid();
    for (size_t i = 0; i < 4; i++) {
        char path[32];
        size_t count = 0;
        gofile_make(&bytes);
        Elf64_Shdr *symbols = gofile_section(&bytes, SYMBOLS);
        Elf64_Shdr *strings = gofile_section(&bytes, STRINGS);
        *symbols = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
                                .sh_offset = symbols->sh_offset,
                                .sh_size = symbols->sh_size,
                                .sh_entsize = sizeof(Elf64_Sym),
                                .sh_link = STRINGS + 1,
                                .sh_addralign = 1};
        ((Elf64_Sym *)(void *)(bytes.at + symbols->sh_offset))[1].st_shndx = SHN_ABS;
        if (i == 1) {
            symbols->sh_entsize = HOLE_BYTES / sizeof(Elf64_Sym) * sizeof(Elf64_Sym);
            symbols->sh_size = symbols->sh_entsize;
        } else if (i == 2) {
            strings->sh_size = HOLE_BYTES;
        } else if (i == 3) {
            strings->sh_type = SHT_NOBITS;
        }
        int fd = hollow_of(&bytes);
        uint64_t before = peak_bytes();
        snprintf(path, sizeof(path), "fd/%d", fd);
        file_symbols(&exam, path, symbol_count, &count);
        cr_expect_eq(count, i == 0, "row %zu: %zu", i, count);
        cr_expect_lt(peak_bytes() - before, LITTLE_BYTES, "row %zu", i);
        close(fd);
    }
}

// ---- what takes long ----------------------------------------------------------------------------

// A unit that bytes go into, one without an end.
static size_t unit_begin(uint8_t *info, uint32_t len, uint32_t abbrev)
{
    static const uint8_t head[] = {4, 0, 0, 0, 0, 0, 8};
    uint32_t rest = len - 4;
    memcpy(info, &rest, 4);
    memcpy(info + 4, head, sizeof(head));
    memcpy(info + 6, &abbrev, 4);
    return 4 + sizeof(head);
}

static struct go_bytes zeros_of(size_t len)
{
    uint8_t *bytes = calloc(1, len);
    cr_assert_not_null(bytes);
    return (struct go_bytes){bytes, len};
}

// A million names that are all one, without an end.
Test(go_dwarf, strings_without_end, .timeout = 20)
{
    enum { COUNT = 1 << 20, UNIT = 1, NAMED };
    static const uint8_t head[] = {DW_AT_name, DW_FORM_string, 0, 0};
    static const uint8_t named[] = {DW_AT_name, DW_FORM_strp, 0, 0};
    struct gofile abbrevs = {.len = 0};
    struct go_bytes info = zeros_of(32 + 5 * COUNT);
    struct go_bytes strings = zeros_of(32 * MIB);
    struct go_root root = {.name = "runtime.memstats"};
    struct go_dwarf dwarf;
    gofile_abbrev(&abbrevs, UNIT, DW_TAG_compile_unit, true, head);
    gofile_abbrev(&abbrevs, NAMED, DW_TAG_variable, false, named);
    gofile_number(&abbrevs, 0, 1);
    memset((void *)strings.at, 'a', strings.len);
    uint8_t *at = (uint8_t *)info.at;
    at += unit_begin(at, (uint32_t)info.len, 0);
    *at++ = UNIT;
    memcpy(at, "runtime", 8);
    at += 8;
    for (size_t i = 0; i < COUNT; i++) {
        at[5 * i] = NAMED;
    }
    const uint32_t last = (uint32_t)strings.len - 8;
    memcpy(at + 5 * (COUNT - 1) + 1, &last, 4);
    memcpy((uint8_t *)strings.at + last, "runtime.", 8);
    const struct go_bytes table = {abbrevs.at, abbrevs.len};
    cr_assert(go_dwarf_open(&dwarf, info, table, strings));
    cr_assert_eq(go_dwarf_roots(&dwarf, &root, 1), 0);
    go_dwarf_close(&dwarf);
    free((void *)info.at);
    free((void *)strings.at);
}

// Units of one byte each, by turns of two tables, the longest there can be.
Test(go_dwarf, tables_by_turns, .timeout = 20)
{
    enum { COUNT = 1 << 18, UNIT_BYTES = 12, TABLE_BYTES = 1 << 17 };
    struct go_bytes info = zeros_of(UNIT_BYTES * COUNT);
    struct go_bytes abbrevs = zeros_of(2 * TABLE_BYTES);
    struct go_root root = {.name = "runtime.memstats"};
    struct go_dwarf dwarf;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t *at = (uint8_t *)info.at + UNIT_BYTES * i;
        at[unit_begin(at, UNIT_BYTES, i % 2 * TABLE_BYTES)] = 1;
    }
    for (size_t at = 0; at + 10 < abbrevs.len; at += 5) { // code, tag, no children, no attributes
        memcpy((uint8_t *)abbrevs.at + at, "\1\1\0\0\0", 5);
    }
    cr_assert(go_dwarf_open(&dwarf, info, abbrevs, (struct go_bytes){0}));
    cr_assert_eq(go_dwarf_roots(&dwarf, &root, 1), 0);
    go_dwarf_close(&dwarf);
    free((void *)info.at);
    free((void *)abbrevs.at);
}

// A structure of millions of members without names, in which each component of each path is sought.
Test(go_dwarf, members_without_end, .timeout = 20)
{
    enum { COUNT = 1 << 22, STRUCT = 1, MEMBER };
    static const uint8_t none[] = {0, 0};
    struct gofile abbrevs = {.len = 0};
    struct go_bytes info = zeros_of(32 + COUNT);
    struct go_dwarf dwarf;
    uint64_t offset;
    uint64_t size;
    gofile_abbrev(&abbrevs, STRUCT, DW_TAG_structure_type, true, none);
    gofile_abbrev(&abbrevs, MEMBER, DW_TAG_member, false, none);
    gofile_number(&abbrevs, 0, 1);
    size_t type = unit_begin((uint8_t *)info.at, (uint32_t)info.len, 0);
    memset((uint8_t *)info.at + type, MEMBER, COUNT);
    ((uint8_t *)info.at)[type] = STRUCT;
    const struct go_bytes table = {abbrevs.at, abbrevs.len};
    cr_assert(go_dwarf_open(&dwarf, info, table, (struct go_bytes){0}));
    cr_assert(go_dwarf_path(&dwarf, type, "", &offset, &size));
    for (size_t i = 0; i < 1000; i++) {
        cr_assert_not(go_dwarf_path(&dwarf, type, ".member", &offset, &size));
    }
    cr_assert_not(go_dwarf_path(&dwarf, type, "", &offset, &size));
    go_dwarf_close(&dwarf);
    free((void *)info.at);
}

// The table of functions, and behind it 100,000 steps to find what is inlined in main.leak: sync.f,
// in which sync.f is inlined, and so on.
static int steps_of(struct gofile *bytes)
{
    enum { PAIRS = 49990, FIELD = 212, VALUES = 120 };
    static uint8_t table[PAIRS * 4 + 512];
    struct gofile head = {.len = 0};
    gofile_pclntab(&head);
    uint32_t offset = (uint32_t)head.len - VALUES;
    memcpy(head.at + FIELD, &offset, sizeof(offset));
    memcpy(table, head.at, head.len);
    uint8_t *at = table + head.len;
    memcpy(at, "\2", 2); // to 0
    for (size_t i = 0; i < PAIRS; i++) {
        memcpy(at + 2 + 4 * i, "\2\0\1\0", 4); // to 1, to 0
    }
    memcpy(at + 2 + 4 * PAIRS, "\2\0\1\x80\2", 6);
    Elf64_Shdr *section = gofile_section(bytes, PCLNTAB);
    section->sh_offset = bytes->len;
    section->sh_size = sizeof(table);
    int fd = gofile_fd(bytes->at, bytes->len);
    cr_assert_eq(pwrite(fd, table, sizeof(table), (off_t)bytes->len), (ssize_t)sizeof(table));
    return fd;
}

// Each of these goroutines takes some 30 ms to describe.
Test(go_routines, hurried)
{
    static struct gofile bytes;
    static struct facts facts;
    static struct go_layout layout;
    static struct {
        uint64_t status, startpc, pc, lo, hi, sp;
    } gs[64];
    static uint64_t all[ARRAY_COUNT(gs)];
    static uint64_t stack[8];
    const uint64_t allgs[2] = {(uint64_t)(uintptr_t)all, ARRAY_COUNT(all)};
    static const enum go_field fields[] = {GO_G_STATUS,   GO_G_STARTPC,  GO_G_PC,
                                           GO_G_STACK_LO, GO_G_STACK_HI, GO_G_SP};
    const struct doctor_options options = {.exact = false};
    struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    struct go_pcln pcln;
    for (size_t i = 0; i < ARRAY_COUNT(gs); i++) {
        uint64_t lo = (uint64_t)(uintptr_t)stack;
        all[i] = (uint64_t)(uintptr_t)&gs[i];
        gs[i].status = 4;
        gs[i].startpc = 0x1000;
        gs[i].pc = 0x1010 + i;
        gs[i].lo = gs[i].sp = lo;
        gs[i].hi = lo + sizeof(stack);
    }
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        layout.fields[fields[i]] = (struct go_value){8 * i, 8, true};
    }
    layout.fields[GO_ALLGS] = (struct go_value){(uint64_t)(uintptr_t)&allgs[0], 8, true};
    layout.fields[GO_ALLGS_LEN] = (struct go_value){(uint64_t)(uintptr_t)&allgs[1], 8, true};
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, steps_of(&bytes)));
    cr_assert(go_pcln_file(&pcln, &file, 0, NULL));
    pcln.inlines = LOAD_ADDR + gofile_section(&bytes, NODES)->sh_offset;
    cr_assert_str_eq(go_pcln_name(&pcln, 0x1010), "sync.f");
    uint64_t begun = clock_thread_cpu_ns();
    exam.deadline_ns = begun + 20 * NS_PER_MS;
    go_routines_read(&exam, &layout, &pcln);
    cr_expect_lt(clock_thread_cpu_ns() - begun, 3 * NS_PER_S); // all: 10 s and more
    cr_expect_eq(facts.sources[SOURCE_GOROUTINES].state, SOURCE_LEFT);
    cr_expect_eq(facts.go.goroutines_count, ARRAY_COUNT(gs));
    go_pcln_close(&pcln);
    go_file_close(&file);
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
        member = member || (i >= GO_G_STATUS && i <= GO_G_BP) || i >= GO_BUCKET_NEXT;
        layout->fields[i] = (struct go_value){
            .at = member ? chance() % 500 : pointer_into(garbage),
            .size = chance() % 8 == 0 ? chance() >> (chance() % 64) : 8,
            .known = chance() % 16 != 0,
        };
    }
}

Test(go_readers, garbage)
{
    static struct gofile bytes;
    static struct go_layout layout;
    static struct facts facts;
    static uint64_t garbage[GARBAGE_WORDS];
    const struct doctor_options options = {.exact = true};
    struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    struct go_pcln pcln;
    uint64_t count;
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0, NULL));
    for (size_t i = 0; i < 300; i++) {
        memset(&facts, 0, sizeof(facts));
        layout_chance(&layout, garbage);
        go_stats_read(&exam, &layout, &facts.go);
        go_count_read(&exam, &layout, &count);
        go_timers_read(&exam, &layout, &count);
        go_routines_read(&exam, &layout, &pcln);
        go_profile_read(&exam, &layout, &pcln);
        go_layout_check(&exam, &file, 0, &layout);
        cr_assert_leq(facts.go.groups_count, GO_GROUPS_MAX);
        cr_assert_leq(facts.sites_count, SITES_MAX);
    }
    go_pcln_close(&pcln);
    go_file_close(&file);
}
