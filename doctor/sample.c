// SPDX-License-Identifier: MIT
//
// Doctor, light samples between two looks: what costs less than a millisecond.
//
// Go  none.
#include <stdio.h>
#include <unistd.h>

#include "go_look.h"
#include "os/clock.h"
#include "os/procfs.h"

static uint64_t cpu_of(int pid)
{
    char path[64];
    char text[1024];
    struct stat_fields fields;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (procfs_file_read(path, text, sizeof(text)) <= 0 || !stat_parse(text, &fields)) {
        return 0;
    }
    return (fields.user_ticks + fields.system_ticks) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t cgroup_usage(const struct facts_cgroup *cgroup)
{
    char path[sizeof(cgroup->path) + 32];
    char text[64];
    uint64_t value;
    snprintf(path, sizeof(path), "%s/%s", cgroup->path,
             cgroup->version == 2 ? "memory.current" : "memory.usage_in_bytes");
    long len = cgroup->version == 0 ? -1 : procfs_file_read(path, text, sizeof(text));
    return len > 0 && procfs_number_u64(text, (size_t)len, &value) ? value : UINT64_MAX;
}

static uint64_t ebb_live(const struct facts *facts)
{
    struct ledger_target target;
    struct ebb_memstats stats;
    struct ledger_extra extra;
    if (!facts->ebb.in_use || ledger_find(&target, facts->pid) != 0 ||
        ledger_memstats_read(&target, &stats, &extra) != 0) {
        return UINT64_MAX;
    }
    return stats.heap_alloc;
}

enum doctor_error doctor_sample(const struct facts *facts, struct sample *sample)
{
    struct procfs_memory memory;
    if (!procfs_memory_read(facts->pid, &memory) || memory.vm_size_bytes == 0) {
        return DOCTOR_ENDED;
    }
    *sample = (struct sample){
        .at_ns = clock_now_ns(),
        .rss_bytes = memory.rss_bytes,
        .anon_bytes = memory.rss_anon_bytes,
        .shmem_bytes = memory.rss_shmem_bytes,
        .live_bytes = ebb_live(facts),
        .goroutines_count = UINT64_MAX,
        .cgroup_bytes = cgroup_usage(&facts->cgroup),
        .cpu_ns = cpu_of(facts->pid),
    };
    if (facts->go.memory_known) {
        sample->collected = go_sample(facts->pid, &sample->live_bytes, &sample->goroutines_count);
    }
    return DOCTOR_OK;
}
