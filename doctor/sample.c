// SPDX-License-Identifier: MIT
//
// Doctor, light samples between two looks: what costs less than a millisecond.
//
// Go  none.

#include "go_look.h"
#include "os/clock.h"
#include "os/procfs.h"

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
    struct procfs_stat stat;
    uint64_t started = facts->process.start_ticks;
    if (!procfs_memory_read(facts->pid, &memory) || memory.vm_size_bytes == 0 ||
        !procfs_stat_read(facts->pid, &stat) || (started != 0 && stat.start_ticks != started)) {
        return DOCTOR_ENDED; // and another may have its number
    }
    *sample = (struct sample){
        .at_ns = clock_now_ns(),
        .rss_bytes = memory.rss_bytes,
        .anon_bytes = memory.rss_anon_bytes,
        .shmem_bytes = memory.rss_shmem_bytes,
        .live_bytes = ebb_live(facts),
        .goroutines_count = UINT64_MAX,
        .cpu_ns = (stat.user_ticks + stat.system_ticks) * (NS_PER_S / PROCFS_TICKS_PER_S),
    };
    if (facts->go.memory_known) {
        go_sample(facts, sample);
    }
    return DOCTOR_OK;
}
