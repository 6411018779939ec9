// SPDX-License-Identifier: MIT
//
// Ledger, outside of the heap: every mapping of the process, page by page, but for the arenas.
//
// Model
//   A page of a mapping is, in this order: Ebb's own if an interval of its memory lies in it; a
//   page of a file or of shared memory; a private copy of a file's page (variables, and the zeroed
//   part behind them); a thread's stack; other anonymous memory. A stack is what the kernel calls
//   [stack], or an anonymous mapping right above an inaccessible one that is small: glibc's guard.
//
// Go  none.
#include <errno.h>
#include <string.h>

#include "ledger/ledger_int.h"
#include "os/sys.h"

// Inaccessible mappings larger than this are no guards: glibc's has one page unless asked for more.
#define GUARD_BYTES_MAX (64 * KIB)
#define STACK_BYTES_MIN (8 * KIB)

enum place { PLACE_ANONYMOUS, PLACE_STACK, PLACE_DATA, PLACE_OWN, PLACE_SPECIAL };

// What is kept from the mapping before.
struct before {
    uint64_t end;
    bool guard;
    enum place place;
    bool of_file; // of a file, or the zeroed part behind one
};

struct outside {
    struct walk *walk;
    enum place place;
    bool shmem;
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_shmem(const char *path)
{
    return starts_with(path, "/memfd:") || starts_with(path, "/dev/shm/") ||
           starts_with(path, "/SYSV") || starts_with(path, "/dev/zero (deleted)");
}

static bool is_huge_file(const char *path)
{
    // hugetlbfs is not in RSS.
    return strstr(path, "hugepage") != NULL;
}

static enum place place_of(const struct walk *walk, const struct mapping *m,
                           const struct before *before)
{
    const char *name = strrchr(m->path, '/');
    if (starts_with(m->path, "[stack")) {
        return PLACE_STACK;
    }
    if (m->path[0] == '[' && !starts_with(m->path, "[heap") && !starts_with(m->path, "[anon")) {
        return PLACE_SPECIAL;
    }
    if (m->path[0] == '/' || starts_with(m->path, "anon_inode")) {
        bool ours = name != NULL && starts_with(name, "/libebb") &&
                    strcmp(m->path, walk->target->object) == 0;
        return ours ? PLACE_OWN : PLACE_DATA;
    }
    bool behind = before->end == m->start;
    if (behind && before->of_file && m->path[0] == '\0' && m->perms[1] == 'w') {
        return before->place; // .bss
    }
    if (behind && before->guard && m->perms[1] == 'w' && m->end - m->start >= STACK_BYTES_MIN) {
        return PLACE_STACK;
    }
    return PLACE_ANONYMOUS;
}

static void place_add(struct ebb_ledger *ledger, enum place place, uint64_t bytes)
{
    switch (place) {
    case PLACE_ANONYMOUS:
        ledger->anonymous += bytes;
        break;
    case PLACE_STACK:
        ledger->stacks += bytes;
        break;
    case PLACE_DATA:
        ledger->data += bytes;
        break;
    case PLACE_OWN:
        ledger->own_data += bytes;
        break;
    case PLACE_SPECIAL:
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
        *(o->shmem ? &ledger->shmem : &ledger->files) += end - start;
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
            place_add(ledger, o->place, from - start);
            start = from;
        }
        if (to > start) {
            own_add(ledger, own->items[i].kind, to - start);
            start = to;
        }
    }
    place_add(ledger, o->place, end - start);
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
    struct before before = {0};
    struct lines lines;
    lines_init(&lines, fd, walk->text, sizeof(walk->text));
    long error = 0;
    char *line;
    while (error == 0 && (line = lines_next(&lines)) != NULL) {
        struct mapping m;
        if (!mapping_parse(line, &m)) {
            continue;
        }
        outside.place = place_of(walk, &m, &before);
        outside.shmem = is_shmem(m.path);
        bool counted = !starts_with(m.path, "[vvar") && !starts_with(m.path, "[vsyscall") &&
                       !is_huge_file(m.path);
        if (counted) {
            walk->residency->files = m.path[0] == '/' || m.path[0] == '[';
            error = mapping_scan(&outside, &m);
        }
        bool closed = strncmp(m.perms, "---", 3) == 0;
        before = (struct before){
            .end = m.end,
            .guard = closed && m.path[0] == '\0' && m.end - m.start <= GUARD_BYTES_MAX,
            .place = outside.place,
            .of_file = m.path[0] == '/' && !outside.shmem,
        };
    }
    sys_call1(SYS_close, fd);
    return error != 0 ? error : lines.error;
}
