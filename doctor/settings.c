// SPDX-License-Identifier: MIT
//
// Doctor, what settings of the environment mean for memory. Pure.
//
// Go  runtime/extern.go describes GODEBUG, GOGC and GOMEMLIMIT.
#include <stdio.h>
#include <string.h>

#include "doctor.h"

// A setting is a whole variable, or one word of a list ("background_thread:true"): then `key` names
// it. meaning holds %s where the value belongs. Sources: mallopt(3), glibc's tunables, the manuals
// of jemalloc 5.3, mimalloc 2.0 and gperftools 2.10, Python's cmdline.
static const struct {
    const char *name, *key, *meaning;
} meanings[] = {
    {"MALLOC_ARENA_MAX", NULL, "at most %s arenas of glibc"},
    {"MALLOC_TRIM_THRESHOLD_", NULL,
     "glibc gives the end of its heap back from %s bytes on, and does not adapt that any more"},
    {"MALLOC_MMAP_THRESHOLD_", NULL,
     "blocks from %s bytes on are mappings of their own, which go back when freed"},
    {"MALLOC_TOP_PAD_", NULL, "glibc takes and keeps %s bytes more than it needs"},
    {"MALLOC_PERTURB_", NULL, "glibc fills blocks: for tests, and slow"},
    {"GLIBC_TUNABLES", "glibc.malloc.arena_max", "at most %s arenas of glibc"},
    {"GLIBC_TUNABLES", "glibc.malloc.trim_threshold",
     "glibc gives the end of its heap back from %s bytes on"},
    {"GLIBC_TUNABLES", "glibc.malloc.mmap_threshold",
     "blocks from %s bytes on are mappings of their own"},
    {"GLIBC_TUNABLES", "glibc.malloc.hugetlb",
     "huge pages for the heap (%s: 1 by madvise, 2 and more hugetlbfs)"},
    {"GLIBC_TUNABLES", "glibc.malloc.tcache_count",
     "each thread keeps up to %s free blocks of each size"},
    {"MALLOC_CONF", "background_thread", "jemalloc's own thread for giving back: %s"},
    {"MALLOC_CONF", "dirty_decay_ms",
     "jemalloc gives free pages back within %s ms (-1: never, 0: at once)"},
    {"MALLOC_CONF", "muzzy_decay_ms",
     "lazily freed pages are taken away for good within %s ms (0: not lazily at all)"},
    {"MALLOC_CONF", "narenas", "%s arenas of jemalloc"},
    {"MIMALLOC_PURGE_DELAY", NULL, "mimalloc gives free pages back after %s ms (0: at once)"},
    {"MIMALLOC_ALLOW_DECOMMIT", NULL, "mimalloc gives memory back: %s"},
    {"MIMALLOC_DECOMMIT_DELAY", NULL, "mimalloc gives free pages back after %s ms"},
    {"TCMALLOC_RELEASE_RATE", NULL, "tcmalloc gives back at rate %s (0: never, 10: fast)"},
    {"TCMALLOC_AGGRESSIVE_DECOMMIT", NULL, "tcmalloc gives each free run back at once: %s"},
    {"TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES", NULL, "caches of all threads hold up to %s bytes"},
    {"GODEBUG", "madvdontneed", "Go returns memory by MADV_DONTNEED if 1, by MADV_FREE if 0: %s"},
    {"GODEBUG", "disablethp", "no huge pages in Go's heap: %s"},
    {"GOGC", NULL, "a collection begins when the heap has grown by %s %% since the last"},
    {"GOMEMLIMIT", NULL, "Go collects and gives back harder near %s"},
    {"PYTHONMALLOC", NULL, "Python's small objects come from %s"},
    {"EBB", NULL, "options of Ebb: ebb options"},
};

// key_value finds "key=value" or "key:value" in a list divided by commas or colons; the length of
// the value, 0 if it is not there.
static size_t key_value(const char *list, const char *key, const char **value)
{
    size_t len = strlen(key);
    for (const char *at = strstr(list, key); at != NULL; at = strstr(at + 1, key)) {
        bool begins = at == list || at[-1] == ',' || at[-1] == ':';
        if (begins && (at[len] == '=' || at[len] == ':')) {
            *value = at + len + 1;
            return strcspn(*value, ",:");
        }
    }
    return 0;
}

// The word before the value, %s, and what is behind it.
static void meaning_write(const char *meaning, const char *value, size_t len, char *buf, size_t cap)
{
    const char *mark = strstr(meaning, "%s");
    if (mark == NULL) {
        snprintf(buf, cap, "%s", meaning);
        return;
    }
    int n = snprintf(buf, cap, "%.*s%.*s", (int)(mark - meaning), meaning, (int)len, value);
    size_t at = n > 0 ? min_size((size_t)n, cap - 1) : 0;
    const char *rest = mark + 2;
    for (; *rest != '\0' && at + 1 < cap; rest++) {
        buf[at++] = *rest;
        rest += rest[0] == '%' && rest[1] == '%';
    }
    buf[at] = '\0';
}

size_t setting_meaning(const struct setting *setting, size_t index, char *buf, size_t cap)
{
    // jemalloc with a prefix reads the same list by another name.
    const char *name = strcmp(setting->name, "JE_MALLOC_CONF") == 0 ? "MALLOC_CONF" : setting->name;
    for (size_t i = index; i < ARRAY_COUNT(meanings); i++) {
        const char *value = setting->value;
        size_t len = strlen(value);
        if (strcmp(meanings[i].name, name) != 0) {
            continue;
        }
        if (meanings[i].key != NULL) {
            len = key_value(setting->value, meanings[i].key, &value);
        }
        if (len != 0) {
            meaning_write(meanings[i].meaning, value, len, buf, cap);
            return i + 1;
        }
    }
    return 0;
}
