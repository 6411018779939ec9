// SPDX-License-Identifier: MIT
//
// JSON, written: a few functions that put commas and quotes where they belong, and the tables of
// fields.
//
// Go  1.16 expvar, which shows runtime.MemStats with these names.
#include "stats/stats.h"

#define MEM(name, field)                                                                           \
    {                                                                                              \
        name, offsetof(struct ebb_memstats, field)                                                 \
    }
#define LEDGER(field)                                                                              \
    {                                                                                              \
#field "_bytes", offsetof(struct ebb_ledger, field)                                        \
    }

const struct jsonout_field jsonout_memstats_fields[] = {
    MEM("Alloc", alloc),
    MEM("TotalAlloc", total_alloc),
    MEM("Sys", sys),
    MEM("Mallocs", mallocs),
    MEM("Frees", frees),
    MEM("HeapAlloc", heap_alloc),
    MEM("HeapSys", heap_sys),
    MEM("HeapIdle", heap_idle),
    MEM("HeapInuse", heap_inuse),
    MEM("HeapReleased", heap_released),
    MEM("HeapObjects", heap_objects),
    MEM("StackInuse", stack_inuse),
    MEM("StackSys", stack_sys),
    MEM("MSpanInuse", mspan_inuse),
    MEM("MSpanSys", mspan_sys),
    MEM("MCacheInuse", mcache_inuse),
    MEM("MCacheSys", mcache_sys),
    MEM("BuckHashSys", buck_hash_sys),
    MEM("GCSys", gc_sys),
    MEM("OtherSys", other_sys),
    {NULL, 0},
};

const struct jsonout_field jsonout_ledger_fields[] = {
    LEDGER(live),       LEDGER(slack),       LEDGER(remote),      LEDGER(cached),
    LEDGER(ready),      LEDGER(holes_ready), LEDGER(lazy),        LEDGER(withdrawn),
    LEDGER(holes_back), LEDGER(runs_back),   LEDGER(meta_tables), LEDGER(meta_caches),
    LEDGER(meta_other), LEDGER(own_data),    LEDGER(anonymous),   LEDGER(stacks),
    LEDGER(data),       LEDGER(files),       LEDGER(shmem),       LEDGER(special),
    {NULL, 0},
};

void jsonout_text(struct fmt *out, const char *text)
{
    fmt_char(out, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            fmt_char(out, '\\');
        }
        fmt_char(out, *text < ' ' || *text > '~' ? '?' : *text);
    }
    fmt_char(out, '"');
}

void jsonout_key(struct fmt *out, const char *name)
{
    if (out->len != 0 && out->buf[out->len - 1] != '{') {
        fmt_char(out, ',');
    }
    jsonout_text(out, name);
    fmt_char(out, ':');
}

void jsonout_u64(struct fmt *out, const char *name, uint64_t value)
{
    jsonout_key(out, name);
    fmt_u64(out, value);
}

void jsonout_fields(struct fmt *out, const struct jsonout_field *fields, const void *base)
{
    for (; fields->name != NULL; fields++) {
        const uint64_t *value = (const void *)((const char *)base + fields->offset);
        jsonout_u64(out, fields->name, *value);
    }
}
