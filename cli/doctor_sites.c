// SPDX-License-Identifier: MIT
//
// What the process itself tells the doctor, where it serves pprof (ebb doctor --url): which sites
// hold the heap, MemStats, goroutines by state. Asked only by name, because an answer takes time of
// the process.
//
// Go  net/http/pprof: /debug/pprof/heap, heap?debug=1, goroutine?debug=2.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"
#include "os/clock.h"
#include "prof.h"

// ---- sites --------------------------------------------------------------------------------------

struct site_sum {
    char *name, *caller;
    int64_t bytes, count;
};

struct site_list {
    struct site_sum *items;
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

static void site_add(struct site_list *list, const char *name, const char *caller, int64_t bytes,
                     int64_t count)
{
    for (size_t i = 0; i < list->count; i++) {
        struct site_sum *sum = &list->items[i];
        if (strcmp(sum->name, name) == 0 && strcmp(sum->caller, caller) == 0) {
            sum->bytes = prof_add(sum->bytes, bytes);
            sum->count = prof_add(sum->count, count);
            return;
        }
    }
    list->items = prof_grow(list->items, list->count, &list->cap, sizeof(*list->items));
    list->items[list->count++] =
        (struct site_sum){prof_format("%s", name), prof_format("%s", caller), bytes, count};
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

static void sites_sum(const struct prof *prof, struct site_list *list)
{
    size_t space = prof_type_find(prof, "inuse_space");
    size_t objects = prof_type_find(prof, "inuse_objects");
    char name[PROF_NAME_BYTES];
    char caller[PROF_NAME_BYTES];
    for (size_t i = 0; i < prof->sample_count && space < prof->type_count; i++) {
        const struct prof_sample *sample = &prof->samples[i];
        size_t count;
        const struct prof_frame **frames = prof_frames(prof, sample, &count);
        size_t at = 0;
        while (at + 1 < count && passes_on(frames[at]->function)) {
            at++;
        }
        name[0] = caller[0] = '\0';
        if (at < count) {
            frame_text(frames[at], name, sizeof(name));
        }
        if (at + 1 < count) {
            frame_text(frames[at + 1], caller, sizeof(caller));
        }
        site_add(list, name, caller, sample->values[space],
                 objects < prof->type_count ? sample->values[objects] : 0);
        free(frames);
    }
}

static int by_bytes(const void *a, const void *b)
{
    int64_t x = ((const struct site_sum *)a)->bytes;
    int64_t y = ((const struct site_sum *)b)->bytes;
    return (x < y) - (x > y);
}

static void sites_take(struct facts *facts, struct site_list *list)
{
    if (list->count != 0) {
        qsort(list->items, list->count, sizeof(*list->items), by_bytes);
    }
    facts->sites_count = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct site_sum *sum = &list->items[i];
        if (facts->sites_count < SITES_MAX && sum->bytes > 0) {
            struct facts_site *site = &facts->sites[facts->sites_count++];
            *site = (struct facts_site){.bytes = (uint64_t)sum->bytes,
                                        .count = sum->count < 0 ? 0 : (uint64_t)sum->count};
            snprintf(site->name, sizeof(site->name), "%.159s", sum->name);
            snprintf(site->caller, sizeof(site->caller), "%.159s", sum->caller);
        }
        free(sum->name);
        free(sum->caller);
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
    (void)memstats_line(text, "NumGC", &go->gc_count);
}

// Groups of goroutine?debug=1: "10000 @ 0x... 0x...", then "#\t0x...\tmain.f+0x1e\t/path:30".
static void goroutines_take(struct facts_go *go, const char *text)
{
    static const char total[] = "goroutine profile: total ";
    if (go->goroutines_known || strncmp(text, total, sizeof(total) - 1) != 0) {
        return;
    }
    go->goroutines_known = true;
    go->goroutines_count = strtoull(text + sizeof(total) - 1, NULL, 10);
    for (const char *line = strchr(text, '\n'); line != NULL; line = strchr(line + 1, '\n')) {
        unsigned long long count;
        char function[GO_TEXT_BYTES];
        if (go->groups_count == GO_GROUPS_MAX) {
            return;
        }
        if (sscanf(line, "\n%llu @ ", &count) == 1) {
            struct go_group *group = &go->groups[go->groups_count++];
            *group = (struct go_group){.count = count, .state = "waiting"};
        } else if (go->groups_count != 0 && sscanf(line, "\n#\t0x%*x\t%120s", function) == 1) {
            struct go_group *group = &go->groups[go->groups_count - 1];
            if (group->site[0] == '\0') {
                function[strcspn(function, "+")] = '\0';
                snprintf(group->site, sizeof(group->site), "%s", function);
            }
        }
    }
}

// Fetches kind?debug=1 as text, to be freed; NULL if it is not there.
static char *page_fetch(const struct prof_source *source, const char *page)
{
    struct prof_source whole = *source;
    struct prof_request request = {0};
    struct prof_bytes bytes;
    whole.url = prof_format("%s%s?debug=1", source->url, page);
    whole.whole = true;
    int status = prof_fetch(&whole, &request, &bytes);
    free(whole.url);
    if (status != 0) {
        free(bytes.data);
        return NULL;
    }
    char *text = prof_format("%.*s", (int)min_size(bytes.count, 64 * MIB), (char *)bytes.data);
    free(bytes.data);
    return text;
}

// ---- asking -------------------------------------------------------------------------------------

bool doctor_sites(const char *url, struct facts *facts)
{
    uint64_t begun = clock_now_ns();
    struct source *note = &facts->sources[SOURCE_SITES];
    struct prof_source source;
    struct prof_request request = {.kind = "heap"};
    struct prof_bytes bytes;
    struct prof prof;
    struct site_list list = {0};
    if (url != NULL) {
        source = prof_source_parse(url);
    } else if (prof_find_agent(facts->pid, &source) != 0) {
        return false;
    }
    int status = prof_fetch(&source, &request, &bytes);
    status = status != 0 ? status : prof_decode(&bytes, source.url, &prof);
    if (status != 0) {
        return false;
    }
    prof_drop(&prof);
    sites_sum(&prof, &list);
    sites_take(facts, &list);
    free(bytes.data);
    if (facts->go.is_go && !source.whole) {
        char *heap = page_fetch(&source, "heap");
        char *goroutines = page_fetch(&source, "goroutine");
        memstats_take(&facts->go, heap != NULL ? heap : "");
        goroutines_take(&facts->go, goroutines != NULL ? goroutines : "");
        free(heap);
        free(goroutines);
    }
    note->state = SOURCE_READ;
    note->cost_ns = clock_now_ns() - begun;
    snprintf(note->why, sizeof(note->why), "asked at %.150s", source.url);
    return true;
}
