// SPDX-License-Identifier: MIT
//
// Ledger, finding the counters page of a process: each ELF object that it has mapped is asked for
// our note, those called libebb first.
//
// Go  debug/buildinfo, runtime/debug.ReadBuildInfo: how a Go program says what it is.
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "ledger/ledger_int.h"
#include "os/sys.h"

// What is read of an object's start: header and program headers of all that linkers make.
#define HEAD_BYTES 2048
#define NOTES_BYTES 1024
#define SEGMENTS_MAX 8

size_t ledger_elf_notes(const void *head, size_t len, struct ledger_segment *out, size_t cap,
                        uint64_t *first_addr)
{
    Elf64_Ehdr ehdr;
    if (len < sizeof(ehdr)) {
        return 0;
    }
    memcpy(&ehdr, head, sizeof(ehdr));
    if (memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0 || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
        ehdr.e_phentsize != sizeof(Elf64_Phdr) || ehdr.e_phoff > len) {
        return 0;
    }
    size_t count = 0;
    bool loaded = false;
    size_t fitting = (len - ehdr.e_phoff) / sizeof(Elf64_Phdr);
    for (size_t i = 0; i < min_size(ehdr.e_phnum, fitting); i++) {
        Elf64_Phdr phdr;
        memcpy(&phdr, (const char *)head + ehdr.e_phoff + i * sizeof(phdr), sizeof(phdr));
        if (phdr.p_type == PT_LOAD && !loaded) {
            *first_addr = phdr.p_vaddr - phdr.p_offset;
            loaded = true;
        }
        if (phdr.p_type == PT_NOTE && count < cap) {
            out[count++] = (struct ledger_segment){phdr.p_vaddr, phdr.p_filesz};
        }
    }
    return loaded ? count : 0;
}

size_t ledger_note_find(const void *notes, size_t len)
{
    size_t pos = 0;
    while (len - pos >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, (const char *)notes + pos, sizeof(note));
        pos += sizeof(note);
        // Sizes are 32 bits, so that rounding up cannot wrap in 64.
        size_t name_bytes = align_up(note.n_namesz, 4);
        size_t desc_bytes = align_up(note.n_descsz, 4);
        if (name_bytes > len - pos || desc_bytes > len - pos - name_bytes) {
            return SIZE_MAX;
        }
        if (note.n_type == LEDGER_NOTE_TYPE && note.n_namesz == sizeof(LEDGER_NOTE_OWNER) &&
            memcmp((const char *)notes + pos, LEDGER_NOTE_OWNER, sizeof(LEDGER_NOTE_OWNER)) == 0 &&
            note.n_descsz >= sizeof(struct ledger_note)) {
            return pos + name_bytes;
        }
        pos += name_bytes + desc_bytes;
    }
    return SIZE_MAX;
}

uint64_t ledger_layout(void)
{
    // What the walk reads, so that two builds which differ there have different numbers.
    static const uint32_t numbers[] = {
        sizeof(struct span),
        sizeof(struct arena),
        sizeof(struct cache),
        sizeof(struct heap),
        sizeof(struct pageheap),
        sizeof(struct meta),
        sizeof(struct options),
        offsetof(struct span, used),
        offsetof(struct span, capacity),
        offsetof(struct span, holes),
        offsetof(struct span, resident),
        offsetof(struct span, size_class),
        offsetof(struct span, state),
        offsetof(struct span, base),
        offsetof(struct span, remote),
        offsetof(struct span, page_count),
        offsetof(struct arena, allocated),
        offsetof(struct arena, released),
        offsetof(struct arena, lazy),
        offsetof(struct arena, prepared_chunks),
        offsetof(struct arena, map),
        offsetof(struct arena, records),
        offsetof(struct cache, large_alloc_count),
        offsetof(struct cache, gather),
        offsetof(struct cache, all_next),
        offsetof(struct heap, meta),
        offsetof(struct heap, caches),
        offsetof(struct heap, central),
        offsetof(struct pageheap, stats),
        offsetof(struct pageheap, window_start),
        offsetof(struct pageheap, maps),
        SIZECLASS_COUNT,
        SPAN_CACHED,
    };
    uint64_t hash = LEDGER_PAGE_VERSION;
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        hash = (hash ^ numbers[i]) * UINT64_C(0x100000001b3); // FNV-1a, by word
    }
    return hash;
}

long ledger_page_check(const struct ledger_page *page, uint64_t addr)
{
    if (page->magic != LEDGER_PAGE_MAGIC || page->self != addr) {
        return -EAGAIN;
    }
    if (page->version != LEDGER_PAGE_VERSION || page->bytes != sizeof(*page) ||
        page->layout != ledger_layout()) {
        return -EPROTO;
    }
    return 0;
}

// Reads the page that the note at addr (of its content) names.
static long page_read(struct ledger_target *target, uint64_t addr, const struct ledger_note *note)
{
    struct ledger_page *page = &target->page;
    memset(page, 0, sizeof(*page));
    if (note->version != LEDGER_NOTE_VERSION) {
        page->version = note->version;
        return -EPROTO;
    }
    target->page_addr =
        addr + offsetof(struct ledger_note, page_offset) + (uint64_t)note->page_offset;
    // The fields that every version has come first: a page may be shorter than ours.
    size_t common = offsetof(struct ledger_page, layout);
    long error = ledger_read_memory(&target->reader, page, target->page_addr, common);
    if (error == 0 && page->bytes == sizeof(*page)) {
        error = ledger_read_memory(&target->reader, page, target->page_addr, sizeof(*page));
    }
    page->library[LEDGER_NAME_BYTES - 1] = '\0';
    page->policy[LEDGER_NAME_BYTES - 1] = '\0';
    return error != 0 ? error : ledger_page_check(page, target->page_addr);
}

// Asks the object mapped at start; -ENOENT if it has no note of ours.
static long object_ask(struct ledger_target *target, uint64_t start, size_t readable)
{
    char head[HEAD_BYTES];
    char notes[NOTES_BYTES];
    struct ledger_segment segments[SEGMENTS_MAX];
    uint64_t first_addr = 0;
    size_t head_bytes = min_size(sizeof(head), readable);
    long error = ledger_read_memory(&target->reader, head, start, head_bytes);
    if (error != 0) {
        return error;
    }
    size_t count = ledger_elf_notes(head, head_bytes, segments, SEGMENTS_MAX, &first_addr);
    for (size_t i = 0; i < count; i++) {
        uint64_t addr = start + (segments[i].addr - first_addr);
        size_t bytes = min_size(segments[i].bytes, sizeof(notes));
        // Within the part that was seen to be mapped as this object.
        if (addr < start || addr - start > readable || bytes > readable - (addr - start) ||
            ledger_read_memory(&target->reader, notes, addr, bytes) != 0) {
            continue;
        }
        size_t pos = ledger_note_find(notes, bytes);
        if (pos != SIZE_MAX) {
            struct ledger_note note;
            memcpy(&note, notes + pos, sizeof(note));
            return page_read(target, addr + pos, &note);
        }
    }
    return -ENOENT;
}

static bool is_ours_by_name(const char *path)
{
    const char *name = strrchr(path, '/');
    return name != NULL && strncmp(name, "/libebb", 7) == 0;
}

static void path_copy(char to[static 256], const char *from)
{
    size_t len = min_size(strlen(from), 255);
    memcpy(to, from, len);
    to[len] = '\0';
}

// One pass over the mappings. by_name: only libraries called libebb; else only the others.
static long maps_search(struct ledger_target *target, bool by_name)
{
    char buf[8192];
    long fd = proc_open(target->reader.pid, "maps");
    if (fd < 0) {
        return fd == -ENOENT ? -ESRCH : fd == -EPERM ? -EACCES : fd;
    }
    struct lines lines;
    lines_init(&lines, fd, buf, sizeof(buf));
    long found = -ENOENT;
    char *line;
    while (found == -ENOENT && (line = lines_next(&lines)) != NULL) {
        struct mapping mapping;
        if (!mapping_parse(line, &mapping) || mapping.offset != 0 || mapping.inode == 0 ||
            mapping.perms[0] != 'r' || mapping.perms[3] != 'p' || mapping.path[0] != '/' ||
            is_ours_by_name(mapping.path) != by_name) {
            continue;
        }
        found = object_ask(target, mapping.start, mapping.end - mapping.start);
        target->object_start = mapping.start;
        path_copy(target->object, mapping.path);
        if (found == -EFAULT) {
            found = -ENOENT; // the end of a file, or unmapped meanwhile
        }
    }
    sys_call1(SYS_close, fd);
    if (found == -ENOENT && lines.error < 0) {
        return lines.error == -EPERM ? -EACCES : lines.error;
    }
    return found;
}

long ledger_find(struct ledger_target *target, int pid)
{
    memset(target, 0, sizeof(*target));
    target->reader.pid = pid;
    long found = maps_search(target, true);
    return found == -ENOENT ? maps_search(target, false) : found;
}
