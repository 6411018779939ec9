// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the mappings: every vma with the place its memory belongs to, before any
// heap has claimed its own.
//
// Model
//   What a vma is tells os/procmaps.h, by its line and the one before. Vmas are in order and do not
//   overlap.
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

// Paths are kept in blocks, because a process may have a hundred thousand of them.
#define NAMES_BYTES (64 * KIB)
struct name_block {
    struct name_block *next;
    size_t used;
    char text[NAMES_BYTES];
};

// name_keep copies a path; NULL without memory. The last one is given again if it is the same.
static const char *name_keep(struct exam *exam, const char *name, size_t len)
{
    size_t bytes = len + 1;
    struct name_block *block = exam->names;
    const char *last = exam->vmas_count != 0 ? exam->vmas[exam->vmas_count - 1].path : "";
    if (strncmp(last, name, len) == 0 && last[len] == '\0') {
        return last;
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
    memcpy(kept, name, len);
    kept[len] = '\0';
    block->used += bytes;
    return kept;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const uint8_t place_of[] = {
    [MAPPING_ANONYMOUS] = PLACE_NATIVE, [MAPPING_STACK] = PLACE_STACK,
    [MAPPING_DATA] = PLACE_DATA,        [MAPPING_SHMEM] = PLACE_SHMEM,
    [MAPPING_SPECIAL] = PLACE_SPECIAL,
};

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

// The length of a file's own name: the kernel adds a word where it was removed or replaced.
static size_t path_len(const char *path, enum mapping_kind kind)
{
    static const char deleted[] = " (deleted)";
    size_t cut = sizeof(deleted) - 1;
    size_t len = strlen(path);
    bool gone = kind == MAPPING_DATA && len > cut && strcmp(path + len - cut, deleted) == 0;
    return gone ? len - cut : len;
}

static bool vma_add(struct exam *exam, const struct mapping *m, enum mapping_kind kind)
{
    if (!vmas_grow(exam)) {
        return false;
    }
    size_t len = path_len(m->path, kind);
    const char *path = name_keep(exam, m->path, len);
    if (path == NULL) {
        return false;
    }
    struct vma vma = {
        .start = m->start,
        .end = m->end,
        .offset = m->offset,
        .path = path,
        .place = place_of[kind],
        .heap = VMA_NO_HEAP,
        .removed = m->path[len] != '\0',
    };
    memcpy(vma.perms, m->perms, sizeof(vma.perms));
    exam->vmas[exam->vmas_count++] = vma;
    return true;
}

size_t vma_behind(const struct exam *exam, uint64_t addr)
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
    struct mapping_before before = {0};
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
        if (!mapping_parse(line, &mapping) || mapping.end <= before.end) {
            refused_count++;
            continue;
        }
        uint64_t last_end = before.end;
        enum mapping_kind kind = mapping_kind(&mapping, &before);
        // The kernel goes on where it was: what was joined meanwhile begins below that.
        mapping.start = max_u64(mapping.start, last_end);
        // Vsyscall lies in the kernel's half: no page of it is the process's.
        if (!starts_with(mapping.path, "[vsyscall")) {
            room = vma_add(exam, &mapping, kind);
        }
    }
    close((int)fd);
    exam->facts->pages.mappings_count = exam->vmas_count;
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
