// SPDX-License-Identifier: MIT
//
// Doctor, the heap profile that every Go program keeps: bytes in use by the place that allocated
// them, out of the buckets in memory.
//
// A bucket is a stack and a size of objects. Its counts are of the sampled allocations; they are
// scaled as Go's own writer of profiles does. They are those of the last completed collection.
//
// Go  src/runtime/mprof.go, src/runtime/pprof/protomem.go.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "go_look.h"

#define BUCKETS_MAX 200000
#define SITES_SLOTS 4096 // a power of two
#define FRAMES_READ 48
#define BUCKET_BYTES_MAX 256
#define WINDOW_BYTES (64 * KIB)
#define CHECK_EVERY 16
#define CHECK_COST_NS (UINT64_C(1) * NS_PER_MS)
#define COUNT_MAX (UINT64_C(1) << 24) // of samples
#define BLOCK_BYTES_MAX (UINT64_C(1) << 38)
// Differences of two sites fit into 64 bits with a sign.
#define SITE_BYTES_MAX 0x1p62

struct site {
    uint64_t pc, caller; // return addresses; pc 0: a free slot
    double bytes, count;
};

// Buckets lie side by side, the newest at the highest address, and the list begins with it: one
// copied piece of memory serves many.
struct window {
    uint64_t start, end;
    uint8_t copy[WINDOW_BYTES];
};

struct profile {
    struct exam *exam;
    const struct go_layout *layout;
    const struct go_pcln *pcln;
    double rate;
    struct site *sites;
    size_t sites_count;
    uint64_t buckets_count;
    struct window *window;
};

static bool window_read(struct profile *p, uint64_t addr, void *to, size_t bytes)
{
    struct window *w = p->window;
    if (bytes > UINT64_MAX - addr) {
        return false;
    }
    if (addr < w->start || addr > w->end || w->end - addr < bytes) {
        // With a little above it: a bucket's end.
        uint64_t end = addr + bytes;
        uint64_t start = end > WINDOW_BYTES ? end - WINDOW_BYTES : 0;
        w->start = 0;
        w->end = 0;
        if (exam_read(p->exam, w->copy, start, (size_t)(end - start)) != 0) {
            return exam_read(p->exam, to, addr, bytes) == 0;
        }
        w->start = start;
        w->end = end;
    }
    memcpy(to, w->copy + (addr - w->start), bytes);
    return true;
}

static struct site *site_slot(struct profile *p, uint64_t pc, uint64_t caller)
{
    uint64_t hash = (pc * 31 + caller) * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < SITES_SLOTS; i++) {
        struct site *slot = &p->sites[((hash >> 40) + i) % SITES_SLOTS];
        if (slot->pc == pc && slot->caller == caller) {
            return slot;
        }
        if (slot->pc == 0) {
            if (p->sites_count >= SITES_SLOTS / 4 * 3) {
                return NULL;
            }
            p->sites_count++;
            *slot = (struct site){.pc = pc, .caller = caller};
            return slot;
        }
    }
    return NULL;
}

// The innermost frame that is the program's own, and its caller; else the innermost of all.
static void site_choose(const struct profile *p, const uint64_t *pcs, size_t count, uint64_t *pc,
                        uint64_t *caller)
{
    size_t at = 0;
    while (at + 1 < count) {
        const char *name = pcs[at] == 0 ? NULL : go_pcln_name(p->pcln, pcs[at] - 1);
        if (name == NULL ||
            (strncmp(name, "runtime.", 8) != 0 && strncmp(name, "internal/runtime/", 17) != 0)) {
            break;
        }
        at++;
    }
    *pc = pcs[at];
    *caller = at + 1 < count ? pcs[at + 1] : 0;
}

// bucket_add scales what a bucket has in use, and adds it to its site.
static void bucket_add(struct profile *p, const uint64_t *pcs, size_t depth, uint64_t bytes,
                       uint64_t count)
{
    uint64_t pc;
    uint64_t caller;
    if (count == 0 || count > bytes || bytes > UINT64_C(1) << 47 || depth == 0) {
        return;
    }
    double factor = 1;
    if (p->rate > 1) {
        // Not 1 / (1 - exp()), which is infinite where blocks are small beside the rate.
        factor = -1 / expm1(-(double)bytes / (double)count / p->rate);
    }
    site_choose(p, pcs, depth, &pc, &caller);
    struct site *site = pc == 0 ? NULL : site_slot(p, pc, caller);
    if (site != NULL) {
        site->bytes += (double)bytes * factor;
        site->count += (double)count * factor;
    }
}

static uint64_t bucket_read(struct profile *p, uint64_t addr)
{
    const struct go_layout *l = p->layout;
    size_t len = (size_t)min_u64(l->fields[GO_BUCKET].size, BUCKET_BYTES_MAX);
    uint8_t head[BUCKET_BYTES_MAX];
    uint64_t pcs[FRAMES_READ];
    uint8_t record[64];
    if (!window_read(p, addr, head, len)) {
        return 0;
    }
    uint64_t depth = go_member(l, GO_BUCKET_DEPTH, head, len);
    uint64_t next = go_member(l, GO_BUCKET_NEXT, head, len);
    if (go_member(l, GO_BUCKET_TYPE, head, len) != GO_BUCKET_MEMORY || depth > GO_DEPTH_MAX) {
        return next;
    }
    size_t frames = (size_t)min_u64(depth, FRAMES_READ);
    if (window_read(p, addr + len, pcs, frames * sizeof(*pcs)) &&
        window_read(p, addr + len + depth * sizeof(*pcs), record, sizeof(record))) {
        uint64_t allocs = go_member(l, GO_RECORD_ALLOCS, record, sizeof(record));
        uint64_t frees = go_member(l, GO_RECORD_FREES, record, sizeof(record));
        uint64_t made = go_member(l, GO_RECORD_ALLOC_BYTES, record, sizeof(record));
        uint64_t freed = go_member(l, GO_RECORD_FREE_BYTES, record, sizeof(record));
        uint64_t count = allocs - min_u64(allocs, frees);
        uint64_t bytes = made - min_u64(made, freed);
        if (!l->fields[GO_RECORD_ALLOC_BYTES].known) {
            // From 1.27 on: all blocks of a bucket have its size.
            uint64_t size = go_member(l, GO_BUCKET_SIZE, head, len);
            bytes = count <= COUNT_MAX && size <= BLOCK_BYTES_MAX ? count * size : 0;
        }
        bucket_add(p, pcs, frames, bytes, count);
    }
    return next;
}

static int site_compare(const void *a, const void *b)
{
    const struct site *x = a;
    const struct site *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : 0;
}

static void sites_report(struct profile *p)
{
    struct facts *facts = p->exam->facts;
    size_t count = 0;
    for (size_t i = 0; i < SITES_SLOTS; i++) {
        if (p->sites[i].bytes >= 1 && p->sites[i].bytes < SITE_BYTES_MAX) {
            p->sites[count++] = p->sites[i];
        }
    }
    qsort(p->sites, count, sizeof(*p->sites), site_compare);
    facts->sites_count = 0;
    for (size_t i = 0; i < min_size(count, SITES_MAX); i++) {
        struct facts_site *out = &facts->sites[facts->sites_count++];
        *out = (struct facts_site){
            .bytes = (uint64_t)p->sites[i].bytes,
            .count = (uint64_t)p->sites[i].count,
        };
        go_pcln_text(p->pcln, p->sites[i].pc - 1, out->name, sizeof(out->name));
        if (p->sites[i].caller != 0) {
            go_pcln_text(p->pcln, p->sites[i].caller - 1, out->caller, sizeof(out->caller));
        }
    }
}

// False if the time was up before the last bucket.
static bool buckets_read(struct profile *p, uint64_t addr)
{
    while (addr != 0 && p->buckets_count < BUCKETS_MAX) {
        if (p->buckets_count % CHECK_EVERY == 0 && !exam_affords(p->exam, CHECK_COST_NS)) {
            return false;
        }
        addr = bucket_read(p, addr);
        p->buckets_count++;
    }
    return addr == 0;
}

void go_profile_read(struct exam *exam, const struct go_layout *layout, const struct go_pcln *pcln)
{
    uint64_t begun = source_begin();
    struct profile p = {.exam = exam, .layout = layout, .pcln = pcln};
    uint64_t first;
    uint64_t rate;
    if (!layout->fields[GO_BUCKET].known || !layout->fields[GO_RECORD_ALLOCS].known ||
        !go_value_read(exam, layout, GO_BUCKETS, &first) ||
        !go_value_read(exam, layout, GO_PROFILE_RATE, &rate)) {
        source_end(exam, SOURCE_GO_PROFILE, begun, SOURCE_ABSENT, "runtime.mbuckets was not found");
        return;
    }
    if ((int64_t)rate <= 0) {
        source_end(exam, SOURCE_GO_PROFILE, begun, SOURCE_ABSENT,
                   "the program does not keep one: it neither links runtime/pprof nor sets "
                   "runtime.MemProfileRate");
        return;
    }
    p.rate = (double)rate;
    p.sites = calloc(SITES_SLOTS, sizeof(*p.sites));
    p.window = calloc(1, sizeof(*p.window));
    if (p.sites == NULL || p.window == NULL) {
        free(p.sites);
        free(p.window);
        source_end(exam, SOURCE_GO_PROFILE, begun, SOURCE_BROKEN, "no memory");
        return;
    }
    bool whole = buckets_read(&p, first);
    sites_report(&p);
    free(p.sites);
    free(p.window);
    if (whole) {
        source_end(exam, SOURCE_GO_PROFILE, begun, SOURCE_READ, "as of the last collection");
    } else {
        source_end(exam, SOURCE_GO_PROFILE, begun, SOURCE_LEFT,
                   "%llu buckets were read when the time was up",
                   (unsigned long long)p.buckets_count);
    }
}
