// SPDX-License-Identifier: MIT
//
// Ledger, outside of the heap: every mapping of the process, page by page, but for the arenas.
//
// Model
//   A page of a mapping is, in this order: Ebb's own if an interval of its memory lies in it; a
//   page of a file or of shared memory; a private copy of a file's page (variables, and the zeroed
//   part behind them); a thread's stack; other anonymous memory (os/procmaps.h tells them apart).
//
// Go  none.
#include <errno.h>
#include <string.h>

#include "ledger/ledger_int.h"
#include "os/sys.h"

struct outside {
    struct walk *walk;
    enum mapping_kind kind;
    bool own; // of libebb's file, or the zeroed part behind it
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_huge_file(const char *path)
{
    // hugetlbfs is not in RSS.
    return strstr(path, "hugepage") != NULL;
}

// own_before: the mapping before is.
static bool is_own(const struct walk *walk, const struct mapping *m, bool own_before)
{
    const char *name = strrchr(m->path, '/');
    return name == NULL
               ? own_before
               : starts_with(name, "/libebb") && strcmp(m->path, walk->target->object) == 0;
}

static void place_add(const struct outside *o, uint64_t bytes)
{
    struct ebb_ledger *ledger = o->walk->ledger;
    switch (o->kind) {
    case MAPPING_ANONYMOUS:
        ledger->anonymous += bytes;
        break;
    case MAPPING_STACK:
        ledger->stacks += bytes;
        break;
    case MAPPING_DATA:
    case MAPPING_SHMEM: // private copies of it
        *(o->own ? &ledger->own_data : &ledger->data) += bytes;
        break;
    case MAPPING_SPECIAL:
        ledger->special += bytes;
        break;
    }
}

static void own_add(struct ebb_ledger *ledger, uint64_t kind, uint64_t bytes)
{
    uint64_t *const fields[] = {
        [OWN_TABLES] = &ledger->meta_tables,
        [OWN_CACHES] = &ledger->meta_caches,
        [OWN_OTHER] = &ledger->meta_other,
        [OWN_DATA] = &ledger->own_data,
    };
    *fields[kind] += bytes;
}

// A resident range of one mapping: cut at the intervals that are Ebb's. A kernel page that is only
// partly so is Ebb's as a whole, of the first interval in it.
static void visit_outside(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct outside *o = arg;
    struct ebb_ledger *ledger = o->walk->ledger;
    size_t page = o->walk->residency->page_bytes;
    if ((flags & RESIDENT_FILE) != 0) {
        *(o->kind == MAPPING_SHMEM ? &ledger->shmem : &ledger->files) += end - start;
        return;
    }
    const struct interval_list *own = &o->walk->own;
    for (size_t i = interval_after(own, start); i < own->count && start < end; i++) {
        uint64_t from = align_down(own->items[i].start, page);
        uint64_t to = min_u64(align_up(own->items[i].end, page), end);
        if (from >= end) {
            break;
        }
        if (from > start) {
            place_add(o, from - start);
            start = from;
        }
        if (to > start) {
            own_add(ledger, own->items[i].kind, to - start);
            start = to;
        }
    }
    place_add(o, end - start);
}

// Scans a mapping but for the arenas in it.
static long mapping_scan(struct outside *o, const struct mapping *m)
{
    uint64_t pos = m->start;
    struct walk *walk = o->walk;
    while (pos < m->end) {
        size_t i = interval_after(&walk->arenas, pos);
        uint64_t stop = m->end;
        if (i < walk->arenas.count && walk->arenas.items[i].start < stop) {
            stop = max_u64(walk->arenas.items[i].start, pos);
        }
        if (stop > pos) {
            long error = residency_scan(walk->residency, pos, stop, visit_outside, o);
            if (error != 0 && error != -ENOMEM) { // mincore: unmapped meanwhile
                return error;
            }
        }
        pos = stop;
        if (i < walk->arenas.count && pos < m->end) {
            pos = walk->arenas.items[i].end;
        }
    }
    return 0;
}

long walk_outside(struct walk *walk)
{
    long fd = proc_open(walk->target->reader.pid, "maps");
    if (fd < 0) {
        return fd;
    }
    struct outside outside = {.walk = walk};
    struct mapping_before before = {0};
    struct lines lines;
    lines_init(&lines, fd, walk->text, sizeof(walk->text));
    long error = 0;
    char *line;
    while (error == 0 && (line = lines_next(&lines)) != NULL) {
        struct mapping m;
        if (!mapping_parse(line, &m)) {
            continue;
        }
        outside.kind = mapping_kind(&m, &before);
        outside.own = outside.kind == MAPPING_DATA && is_own(walk, &m, outside.own);
        bool counted = !starts_with(m.path, "[vvar") && !starts_with(m.path, "[vsyscall") &&
                       !is_huge_file(m.path);
        if (counted) {
            walk->residency->files = m.path[0] == '/' || m.path[0] == '[';
            error = mapping_scan(&outside, &m);
        }
    }
    sys_call1(SYS_close, fd);
    return error != 0 ? error : lines.error;
}
