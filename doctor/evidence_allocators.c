// SPDX-License-Identifier: MIT
//
// Doctor, evidence of allocators that are not glibc's: jemalloc, mimalloc and tcmalloc, by the
// library that is mapped or by the symbols of a program that has one inside; what their settings
// mean; V8, by the name of the program.
//
// Model
//   Each allocator is one row of a table. Where its tables can be read it says itself which memory
//   is its own (heap_*.c); else all anonymous memory that nobody else has claimed is put down to
//   it, undivided: a program has one malloc.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "parts.h"

struct allocator {
    enum heap_kind kind;
    enum source_id source;
    const char *library;    // how the name of its file begins
    const char *symbols[3]; // any of these, in the program itself
    const char *settings[2];
    bool uses_brk;
    enum source_state (*find)(struct exam *exam, const struct module *module, size_t heap_index,
                              char *why, size_t why_cap);
};

static const struct allocator allocators[] = {
    {
        .kind = HEAP_JEMALLOC,
        .source = SOURCE_JEMALLOC,
        .library = "libjemalloc",
        .symbols = {"je_malloc", "je_mallctl", "malloc_stats_print"},
        .settings = {"MALLOC_CONF", "JE_MALLOC_CONF"},
        .find = heap_jemalloc_find,
    },
    {
        .kind = HEAP_MIMALLOC,
        .source = SOURCE_MIMALLOC,
        .library = "libmimalloc",
        .symbols = {"mi_malloc", "mi_heap_malloc", "_mi_heap_main"},
        .settings = {"MIMALLOC_PURGE_DELAY", "MIMALLOC_DECOMMIT_DELAY"},
        .find = heap_mimalloc_find,
    },
    {
        .kind = HEAP_TCMALLOC,
        .source = SOURCE_TCMALLOC,
        .library = "libtcmalloc",
        .symbols = {"tc_malloc", "TCMalloc_SystemTaken", "MallocExtension_GetNumericProperty"},
        .settings = {"TCMALLOC_RELEASE_RATE", "TCMALLOC_AGGRESSIVE_DECOMMIT"},
        .uses_brk = true,
        .find = heap_tcmalloc_find,
    },
};

// ---- symbols of the program ---------------------------------------------------------------------

static void program_visit(void *arg, const char *name, uint64_t value)
{
    unsigned *found = arg;
    (void)value;
    for (size_t k = 0; k < ARRAY_COUNT(allocators); k++) {
        for (size_t j = 0; j < ARRAY_COUNT(allocators[k].symbols); j++) {
            // Some programs have 200,000 symbols: most differ from the start.
            const char *wanted = allocators[k].symbols[j];
            if (name[0] == wanted[0] && strcmp(name, wanted) == 0) {
                *found |= 1u << k;
            }
        }
    }
}

// program_symbols tells which allocators the program has inside, a bit for each row.
static unsigned program_symbols(struct exam *exam)
{
    unsigned found = 0;
    uint64_t begun = source_begin();
    (void)file_symbols(exam, "exe", program_visit, &found);
    exam->facts->sources[SOURCE_EXE].cost_ns += source_begin() - begun;
    return found;
}

// ---- threads ------------------------------------------------------------------------------------

static bool thread_named(const struct exam *exam, const char *prefix)
{
    char path[256];
    bool found = false;
    snprintf(path, sizeof(path), "%s/proc/%d/task", exam->options->root, exam->facts->pid);
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir != NULL && !found && exam_affords(exam, 0) && (entry = readdir(dir)) != NULL) {
        char name[320];
        char text[32];
        snprintf(name, sizeof(name), "task/%s/comm", entry->d_name);
        if (entry->d_name[0] != '.' && exam_file_read(exam, name, text, sizeof(text)) > 0) {
            found = strncmp(text, prefix, strlen(prefix)) == 0;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return found;
}

// ---- before pages are counted -------------------------------------------------------------------

// What the name of the file tells: libtcmalloc_minimal.so.4.5.11 is no release of gperftools, but
// better than nothing.
static void version_of_file(const char *path, char *version, size_t cap)
{
    const char *so = strstr(path, ".so.");
    snprintf(version, cap, "%s%.24s", so != NULL ? "so." : "", so != NULL ? so + 4 : "");
}

static void settings_note(const struct exam *exam, const struct allocator *allocator,
                          struct facts_heap *heap)
{
    size_t used = strlen(heap->note);
    for (size_t i = 0; i < ARRAY_COUNT(allocator->settings); i++) {
        const char *value = facts_setting(exam->facts, allocator->settings[i]);
        if (value != NULL && used < sizeof(heap->note)) {
            int n = snprintf(heap->note + used, sizeof(heap->note) - used, "%s%s=%s",
                             used == 0 ? "" : "; ", allocator->settings[i], value);
            used += n > 0 ? (size_t)n : 0;
        }
    }
}

static void claim_rest(struct exam *exam, size_t heap_index, bool uses_brk)
{
    for (size_t i = 0; i < exam->vmas_count; i++) {
        struct vma *vma = &exam->vmas[i];
        bool brk = strncmp(vma->path, "[heap", 5) == 0;
        if (vma_is_anonymous(vma) && vma->place == PLACE_NATIVE && (!brk || uses_brk)) {
            vma_claim(exam, vma, heap_index);
        }
    }
}

static void allocator_take(struct exam *exam, const struct allocator *allocator, const char *path)
{
    uint64_t begun = source_begin();
    char why[SOURCE_WHY_BYTES] = "";
    struct module module;
    size_t index = heap_add(exam, allocator->kind);
    if (index == HEAPS_MAX) {
        source_end(exam, allocator->source, begun, SOURCE_LEFT, "there are more heaps than %d",
                   HEAPS_MAX);
        return;
    }
    struct facts_heap *heap = &exam->facts->heaps[index];
    version_of_file(path, heap->version, sizeof(heap->version));
    // tcmalloc gives back as it frees, by its release rate; time has no part in it.
    heap->decays = allocator->kind != HEAP_TCMALLOC;
    heap->decay_thread = allocator->kind == HEAP_JEMALLOC && thread_named(exam, "jemalloc_bg_thd");
    module_find(exam, path, &module);
    long refused = memory_refused(exam);
    enum source_state state =
        refused != 0 ? SOURCE_REFUSED : allocator->find(exam, &module, index, why, sizeof(why));
    settings_note(exam, allocator, heap);
    // Where its pieces are not known, and Ebb does not stand in front of it: then it has next to
    // nothing.
    const struct parts *parts = parts_of(exam, allocator->kind);
    bool pieces = state == SOURCE_READ && !parts->counted && !parts->cut;
    if (!pieces && !exam->facts->ebb.in_use) {
        claim_rest(exam, index, allocator->uses_brk);
    }
    if (refused != 0) {
        source_error(exam, allocator->source, begun, refused);
    } else {
        source_end(exam, allocator->source, begun, state, "%s", why);
    }
}

// V8 reserves for each of its pages and returns them by itself; which memory is its own shows
// nowhere outside.
static void v8_note(struct exam *exam)
{
    const char *name = strrchr(exam->facts->process.exe, '/');
    if (name == NULL || (strcmp(name, "/node") != 0 && strcmp(name, "/nodejs") != 0)) {
        return;
    }
    size_t index = heap_add(exam, HEAP_V8);
    if (index < HEAPS_MAX) {
        snprintf(exam->facts->heaps[index].note, sizeof(exam->facts->heaps[index].note),
                 "its pages cannot be told from other anonymous memory: node --inspect, "
                 "process.memoryUsage()");
    }
}

void evidence_allocators(struct exam *exam)
{
    const char *exe = exam->facts->process.exe;
    bool by_library = false;
    if (exam->vmas_count == 0) {
        return;
    }
    evidence_python(exam);
    for (size_t i = 0; i < ARRAY_COUNT(allocators); i++) {
        const struct vma *library = vma_named(exam, allocators[i].library);
        if (library != NULL) {
            by_library = true;
            allocator_take(exam, &allocators[i], library->path);
        }
    }
    unsigned inside =
        by_library || exe[0] == '\0' || exam->facts->go.is_go || exam->facts->ebb.in_use
            ? 0
            : program_symbols(exam);
    for (size_t i = 0; i < ARRAY_COUNT(allocators); i++) {
        if ((inside & 1u << i) != 0) {
            allocator_take(exam, &allocators[i], exe);
        }
    }
    v8_note(exam);
}

// ---- afterwards ---------------------------------------------------------------------------------

void evidence_allocators_divide(struct exam *exam)
{
    evidence_jvm_divide(exam);
    for (const struct parts *parts = exam->parts; parts != NULL; parts = parts->next) {
        struct facts_heap *heap = facts_heap(exam->facts, parts->heap);
        enum source_id id = parts->heap == HEAP_PYTHON ? SOURCE_PYTHON : SOURCE_COUNT;
        for (size_t i = 0; i < ARRAY_COUNT(allocators); i++) {
            id = allocators[i].kind == parts->heap ? allocators[i].source : id;
        }
        if (heap == NULL || id == SOURCE_COUNT || exam->facts->sources[id].state != SOURCE_READ) {
            continue;
        }
        uint64_t begun = source_begin();
        if (parts->cut) {
            source_end(exam, id, begun, SOURCE_LEFT, "it is in too many pieces");
        } else if (!exam->facts->pages.whole) {
            source_end(exam, id, begun, SOURCE_LEFT, "not all of its pages were counted");
        } else {
            parts_divide(heap, parts);
        }
    }
}
