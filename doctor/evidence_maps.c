// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the mappings: every vma with the place its memory belongs to, before any
// heap has claimed its own.
//
// Model
//   A vma is, in this order: what the kernel names ([stack], [vdso]); shared memory; of a file,
//   whose private copies are variables of the program; the zeroed part right behind such (.bss); a
//   thread's stack, which is anonymous memory right above a small inaccessible mapping, glibc's
//   guard; other anonymous memory.
//
// Go  none.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor_int.h"
#include "os/procmaps.h"

// Inaccessible mappings larger than this are no guards: glibc's has one page unless asked for more.
#define GUARD_BYTES_MAX (64 * KIB)
#define STACK_BYTES_MIN (8 * KIB)

// Paths are kept in blocks, because a process may have a hundred thousand of them.
#define NAMES_BYTES (64 * KIB)
struct name_block {
    struct name_block *next;
    size_t used;
    char text[NAMES_BYTES];
};

// name_keep copies a path; NULL without memory. The last one is given again if it is the same.
static const char *name_keep(struct exam *exam, const char *name)
{
    size_t bytes = strlen(name) + 1;
    struct name_block *block = exam->names;
    if (bytes == 1) {
        return "";
    }
    if (exam->vmas_count != 0 && strcmp(exam->vmas[exam->vmas_count - 1].path, name) == 0) {
        return exam->vmas[exam->vmas_count - 1].path;
    }
    if (block == NULL || NAMES_BYTES - block->used < bytes) {
        block = malloc(sizeof(*block));
        if (block == NULL || bytes > NAMES_BYTES) {
            free(block);
            return NULL;
        }
        block->next = exam->names;
        block->used = 0;
        exam->names = block;
    }
    char *kept = block->text + block->used;
    memcpy(kept, name, bytes);
    block->used += bytes;
    return kept;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_shared_memory(const struct mapping *m)
{
    return starts_with(m->path, "/memfd:") || starts_with(m->path, "/dev/shm/") ||
           starts_with(m->path, "/SYSV") || starts_with(m->path, "/dev/zero (deleted)") ||
           starts_with(m->path, "[anon_shmem");
}

static bool is_closed(const char *perms)
{
    return memcmp(perms, "---", 3) == 0;
}

static enum place place_of(const struct mapping *m, const struct vma *before)
{
    bool behind = before != NULL && before->end == m->start;
    if (starts_with(m->path, "[stack")) {
        return PLACE_STACK;
    }
    if (is_shared_memory(m)) {
        return PLACE_SHMEM;
    }
    if (m->path[0] == '[' && !starts_with(m->path, "[heap") && !starts_with(m->path, "[anon")) {
        return PLACE_SPECIAL;
    }
    if (m->path[0] == '/' || starts_with(m->path, "anon_inode")) {
        return PLACE_DATA;
    }
    if (behind && before->place == PLACE_DATA && m->path[0] == '\0' && m->perms[1] == 'w') {
        return PLACE_DATA; // .bss
    }
    if (behind && is_closed(before->perms) && before->path[0] == '\0' &&
        before->end - before->start <= GUARD_BYTES_MAX && m->perms[1] == 'w' &&
        m->end - m->start >= STACK_BYTES_MIN && m->path[0] == '\0') {
        return PLACE_STACK;
    }
    return PLACE_NATIVE;
}

static bool vmas_grow(struct exam *exam)
{
    if (exam->vmas_count < exam->vmas_cap) {
        return true;
    }
    size_t cap = exam->vmas_cap == 0 ? 256 : 2 * exam->vmas_cap;
    struct vma *vmas = cap > VMAS_MAX ? NULL : realloc(exam->vmas, cap * sizeof(*vmas));
    if (vmas == NULL) {
        return false;
    }
    exam->vmas = vmas;
    exam->vmas_cap = cap;
    return true;
}

static bool vma_add(struct exam *exam, const struct mapping *m)
{
    if (!vmas_grow(exam)) {
        return false;
    }
    const char *path = name_keep(exam, m->path);
    if (path == NULL) {
        return false;
    }
    const struct vma *before = exam->vmas_count == 0 ? NULL : &exam->vmas[exam->vmas_count - 1];
    struct vma vma = {
        .start = m->start,
        .end = m->end,
        .offset = m->offset,
        .inode = m->inode,
        .path = path,
        .place = (uint8_t)place_of(m, before),
        .heap = VMA_NO_HEAP,
    };
    memcpy(vma.perms, m->perms, sizeof(vma.perms));
    exam->vmas[exam->vmas_count++] = vma;
    return true;
}

// The index of the first vma that ends behind addr; their number if there is none.
static size_t vma_behind(const struct exam *exam, uint64_t addr)
{
    size_t low = 0;
    size_t high = exam->vmas_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (exam->vmas[middle].end <= addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct vma *vma_at(const struct exam *exam, uint64_t addr)
{
    struct vma *vma = exam->vmas + vma_behind(exam, addr);
    return vma < exam->vmas + exam->vmas_count && vma->start <= addr ? vma : NULL;
}

struct vma *vma_named(const struct exam *exam, const char *prefix)
{
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const char *name = strrchr(exam->vmas[i].path, '/');
        if (name != NULL && starts_with(name + 1, prefix)) {
            return &exam->vmas[i];
        }
    }
    return NULL;
}

bool vma_cut(struct exam *exam, uint64_t addr)
{
    struct vma *vma = vma_at(exam, addr);
    if (vma == NULL || vma->start == addr) {
        return true;
    }
    size_t index = (size_t)(vma - exam->vmas);
    if (!vmas_grow(exam)) {
        return false;
    }
    vma = &exam->vmas[index];
    memmove(vma + 1, vma, (exam->vmas_count - index) * sizeof(*vma));
    exam->vmas_count++;
    vma[1].start = addr;
    vma[1].offset += vma->path[0] == '/' ? addr - vma->start : 0;
    vma->end = addr;
    return true;
}

void vma_claim(struct exam *exam, struct vma *vma, size_t heap_index)
{
    if (heap_index < exam->facts->heaps_count) {
        vma->place = PLACE_HEAP;
        vma->heap = (uint8_t)heap_index;
    }
}

bool vma_is_anonymous(const struct vma *vma)
{
    return vma->perms[1] == 'w' && vma->perms[3] == 'p' &&
           (vma->path[0] == '\0' || starts_with(vma->path, "[anon") ||
            starts_with(vma->path, "[heap"));
}

size_t heap_add(struct exam *exam, enum heap_kind kind)
{
    struct facts *facts = exam->facts;
    if (facts->heaps_count == HEAPS_MAX) {
        return HEAPS_MAX;
    }
    facts->heaps[facts->heaps_count] = (struct facts_heap){.kind = kind};
    return facts->heaps_count++;
}

void vmas_free(struct exam *exam)
{
    free(exam->vmas);
    while (exam->names != NULL) {
        struct name_block *next = exam->names->next;
        free(exam->names);
        exam->names = next;
    }
}

static long maps_open(const struct exam *exam)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/proc/%d/maps", exam->options->root, exam->facts->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void evidence_maps(struct exam *exam)
{
    uint64_t begun = source_begin();
    char buf[2 * PATH_MAX];
    struct lines lines;
    char *line;
    bool room = true;
    size_t refused_count = 0;
    long fd = maps_open(exam);
    if (fd < 0) {
        source_error(exam, SOURCE_MAPS, begun, fd);
        return;
    }
    lines_init(&lines, fd, buf, sizeof(buf));
    while (room && (line = lines_next(&lines)) != NULL) {
        struct mapping mapping;
        // Vsyscall lies in the kernel's half: no page of it is the process's.
        if (!mapping_parse(line, &mapping)) {
            refused_count++;
        } else if (!starts_with(mapping.path, "[vsyscall")) {
            room = vma_add(exam, &mapping);
        }
    }
    close((int)fd);
    struct facts_pages *pages = &exam->facts->pages;
    pages->mappings_count = exam->vmas_count;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        pages->closed_bytes += is_closed(vma->perms) ? vma->end - vma->start : 0;
    }
    if (lines.error != 0) {
        source_error(exam, SOURCE_MAPS, begun, lines.error);
    } else if (!room) {
        source_end(exam, SOURCE_MAPS, begun, SOURCE_BROKEN, "more than %zu mappings, or no memory",
                   exam->vmas_count);
    } else if (refused_count != 0) {
        source_end(exam, SOURCE_MAPS, begun, SOURCE_BROKEN, "%zu lines make no sense",
                   refused_count);
    } else {
        source_end(exam, SOURCE_MAPS, begun, SOURCE_READ, NULL);
    }
}

long maps_gaps(const struct exam *exam, maps_visit *visit, void *arg)
{
    char buf[2 * PATH_MAX];
    struct lines lines;
    struct mapping m;
    char *line;
    long fd = maps_open(exam);
    if (fd < 0) {
        return fd;
    }
    lines_init(&lines, fd, buf, sizeof(buf));
    while ((line = lines_next(&lines)) != NULL) {
        if (!mapping_parse(line, &m) || m.perms[0] != 'r' || m.perms[1] != 'w') {
            continue;
        }
        const struct vma *last = exam->vmas + exam->vmas_count;
        const struct vma *vma = exam->vmas + vma_behind(exam, m.start);
        for (uint64_t at = m.start; at < m.end; vma++) {
            // What was closed when it was read, and is open now, is a gap too.
            bool open = vma < last && vma->perms[0] == 'r' && vma->perms[1] == 'w';
            uint64_t next = vma < last ? vma->end : m.end;
            uint64_t stop = min_u64(open ? vma->start : next, m.end);
            if (stop > at) {
                visit(arg, at, stop);
            }
            at = max_u64(next, at);
        }
    }
    close((int)fd);
    return lines.error;
}
