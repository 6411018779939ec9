// SPDX-License-Identifier: MIT
//
// What the process itself tells the doctor, where it serves pprof (ebb doctor --url): which sites
// hold the heap, and MemStats. Asked only by name, because an answer takes time of the process.
//
// Go  net/http/pprof: /debug/pprof/heap, heap?debug=1.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"
#include "os/clock.h"

// ---- sites --------------------------------------------------------------------------------------

// Bytes and count are of two's complement here: what is sent may be below 0.
struct site_list {
    struct facts_site *items;
    size_t count, cap;
};

// Frames that only pass memory on: whoever called them is the site.
static bool passes_on(const char *function)
{
    static const char *const names[] = {"malloc",         "calloc",   "realloc",   "ebb_malloc",
                                        "operator new",   "runtime.", "strdup",    "aligned_alloc",
                                        "posix_memalign", "reflect.", "internal/", "_Znwm",
                                        "_Znam"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (strncmp(function, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return function[0] == '\0';
}

// "main.add (cache.go:55)": the folders of a file say little, and a line is short.
static void frame_text(const struct prof_frame *frame, char *buf, size_t cap)
{
    const char *slash = strrchr(frame->file, '/');
    const char *file = slash != NULL ? slash + 1 : frame->file;
    prof_frame_name(frame, 0, buf, cap);
    size_t len = strlen(buf);
    if (file[0] != '\0' && frame->line > 0) {
        snprintf(buf + len, cap - len, " (%s:%lld)", file, (long long)frame->line);
    }
}

static void sites_read(const struct prof *prof, struct site_list *list)
{
    size_t space = prof_type_find(prof, "inuse_space");
    size_t objects = prof_type_find(prof, "inuse_objects");
    char text[PROF_NAME_BYTES];
    for (size_t i = 0; i < prof->sample_count && space < prof->type_count; i++) {
        const struct prof_sample *sample = &prof->samples[i];
        size_t count;
        const struct prof_frame **frames = prof_frames(prof, sample, &count);
        size_t at = 0;
        while (at + 1 < count && passes_on(frames[at]->function)) {
            at++;
        }
        list->items = prof_grow(list->items, list->count, &list->cap, sizeof(*list->items));
        struct facts_site *site = &list->items[list->count++];
        *site = (struct facts_site){.bytes = (uint64_t)sample->values[space]};
        site->count = objects < prof->type_count ? (uint64_t)sample->values[objects] : 0;
        if (at < count) {
            frame_text(frames[at], text, sizeof(text));
            snprintf(site->name, sizeof(site->name), "%.159s", text);
        }
        if (at + 1 < count) {
            frame_text(frames[at + 1], text, sizeof(text));
            snprintf(site->caller, sizeof(site->caller), "%.159s", text);
        }
        free(frames);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct facts_site *x = a;
    const struct facts_site *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : strcmp(x->caller, y->caller);
}

static int by_bytes(const void *a, const void *b)
{
    int64_t x = (int64_t)((const struct facts_site *)a)->bytes;
    int64_t y = (int64_t)((const struct facts_site *)b)->bytes;
    return (x < y) - (x > y);
}

// Sums up what is of one site, and keeps the largest.
static void sites_take(struct facts *facts, struct site_list *list)
{
    size_t count = 0;
    facts->sites_count = 0;
    if (list->count == 0) {
        return;
    }
    qsort(list->items, list->count, sizeof(*list->items), by_name);
    for (size_t i = 0; i < list->count; i++) {
        struct facts_site *last = count != 0 ? &list->items[count - 1] : NULL;
        if (last != NULL && by_name(last, &list->items[i]) == 0) {
            last->bytes += list->items[i].bytes;
            last->count += list->items[i].count;
        } else {
            list->items[count++] = list->items[i];
        }
    }
    qsort(list->items, count, sizeof(*list->items), by_bytes);
    for (size_t i = 0; i < min_size(count, SITES_MAX) && (int64_t)list->items[i].bytes > 0; i++) {
        struct facts_site *site = &facts->sites[facts->sites_count++];
        *site = list->items[i];
        site->count = (int64_t)site->count < 0 ? 0 : site->count;
        term_clean(site->name); // a character may have been cut in two
        term_clean(site->caller);
    }
    free(list->items);
}

// ---- what text pages say ------------------------------------------------------------------------

// The number behind "# HeapIdle = ".
static bool memstats_line(const char *text, const char *name, uint64_t *value)
{
    char wanted[48];
    snprintf(wanted, sizeof(wanted), "\n# %s = ", name);
    const char *at = strstr(text, wanted);
    if (at == NULL) {
        return false;
    }
    *value = strtoull(at + strlen(wanted), NULL, 10);
    return true;
}

static void memstats_take(struct facts_go *go, const char *text)
{
    uint64_t sys;
    uint64_t idle;
    if (go->memory_known || !memstats_line(text, "HeapSys", &sys) ||
        !memstats_line(text, "HeapIdle", &idle)) {
        return;
    }
    go->memory_known = true;
    go->heap_sys_bytes = sys;
    go->heap_idle_bytes = idle;
    (void)memstats_line(text, "Sys", &go->sys_bytes);
    (void)memstats_line(text, "HeapInuse", &go->heap_inuse_bytes);
    (void)memstats_line(text, "HeapReleased", &go->heap_released_bytes);
    (void)memstats_line(text, "HeapAlloc", &go->heap_live_bytes);
    (void)memstats_line(text, "NextGC", &go->next_gc_bytes);
}

// Fetches heap?debug=1 as text, to be freed; NULL if it is not there.
static char *memstats_fetch(const struct prof_source *source)
{
    struct prof_source whole = *source;
    struct prof_request request = {0};
    struct prof_bytes bytes;
    whole.url = prof_format("%sheap?debug=1", source->url);
    whole.whole = true;
    int status = prof_fetch(&whole, &request, &bytes);
    free(whole.url);
    char *text =
        status != 0 ? NULL
                    : prof_format("%.*s", (int)min_size(bytes.count, 64 * MIB), (char *)bytes.data);
    free(bytes.data);
    return text;
}

// ---- asking -------------------------------------------------------------------------------------

bool doctor_sites(const struct prof_source *where, struct facts *facts)
{
    uint64_t begun = clock_now_ns();
    struct source *note = &facts->sources[SOURCE_SITES];
    struct prof_source source;
    struct prof_request request = {.kind = "heap"};
    struct prof_bytes bytes;
    struct prof prof;
    struct site_list list = {0};
    if (where != NULL) {
        source = *where;
    } else if (prof_find_agent(facts->pid, &source) != 0) {
        return false;
    }
    int status = prof_fetch(&source, &request, &bytes);
    status = status != 0 ? status : prof_decode(&bytes, source.url, &prof);
    if (status != 0) {
        return false;
    }
    prof_drop(&prof);
    sites_read(&prof, &list);
    sites_take(facts, &list);
    free(bytes.data);
    if (facts->go.is_go && !source.whole) {
        char *text = memstats_fetch(&source);
        memstats_take(&facts->go, text != NULL ? text : "");
        free(text);
    }
    note->state = SOURCE_READ;
    note->cost_ns = clock_now_ns() - begun;
    snprintf(note->why, sizeof(note->why), "asked at %.150s", source.url);
    return true;
}
