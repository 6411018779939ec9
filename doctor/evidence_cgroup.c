// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the cgroup: what is charged to it, against which limit, and who is in it.
//
// Lazily freed pages leave the anonymous list for that of inactive files, in version 1 and 2: the
// two file lists together minus the cache that is really there (which counts shared memory, and
// the lists of files do not) is what is lazily freed. Taken for page cache, it misleads.
//
// Go  none.
#include <stdio.h>
#include <string.h>

#include "doctor_int.h"
#include "os/cgroup.h"
#include "os/pressure.h"
#include "os/procfs.h"

#define STAT_BYTES 8192

static long place_read(const struct facts_cgroup *cgroup, const char *name, char *buf, size_t cap)
{
    char path[sizeof(cgroup->path) + 64];
    snprintf(path, sizeof(path), "%s/%s", cgroup->path, name);
    return procfs_file_read(path, buf, cap);
}

static uint64_t number_read(const struct facts_cgroup *cgroup, const char *name)
{
    char text[64];
    uint64_t value = 0;
    long len = place_read(cgroup, name, text, sizeof(text));
    return len > 0 && procfs_number_u64(text, (size_t)len, &value) ? value : 0;
}

static uint64_t field_read(const char *text, long len, const char *name)
{
    uint64_t value = 0;
    return len > 0 && procfs_field_u64(text, (size_t)len, name, &value) ? value : 0;
}

// Fields that only the doctor asks for; names differ between the versions.
static void stat_rest(struct facts_cgroup *cgroup)
{
    char text[STAT_BYTES];
    long len = place_read(cgroup, "memory.stat", text, sizeof(text));
    if (cgroup->version == 2) {
        cgroup->dirty_bytes = field_read(text, len, "file_dirty");
        cgroup->sock_bytes = field_read(text, len, "sock");
        cgroup->kernel_bytes = field_read(text, len, "kernel");
        if (cgroup->kernel_bytes == 0) { // before Linux 5.18
            cgroup->kernel_bytes = field_read(text, len, "slab") +
                                   field_read(text, len, "kernel_stack") +
                                   field_read(text, len, "pagetables");
        }
        cgroup->swap_bytes = number_read(cgroup, "memory.swap.current");
        len = place_read(cgroup, "memory.events", text, sizeof(text));
        cgroup->oom_kill_count = field_read(text, len, "oom_kill");
        cgroup->limit_hit_count = field_read(text, len, "max");
        return;
    }
    cgroup->dirty_bytes = field_read(text, len, "total_dirty");
    cgroup->swap_bytes = field_read(text, len, "total_swap");
    cgroup->kernel_bytes = number_read(cgroup, "memory.kmem.usage_in_bytes");
    cgroup->sock_bytes = number_read(cgroup, "memory.kmem.tcp.usage_in_bytes");
    cgroup->limit_hit_count = number_read(cgroup, "memory.failcnt");
    len = place_read(cgroup, "memory.oom_control", text, sizeof(text));
    cgroup->oom_kill_count = field_read(text, len, "oom_kill");
}

// size_absurd tells a file that states neither a size nor, where that is allowed, "max". One that
// is not there states nothing.
static bool size_absurd(const struct facts_cgroup *cgroup, const char *name, char *text, size_t cap)
{
    uint64_t value;
    long len = place_read(cgroup, name, text, cap);
    if (len < 0) {
        return false;
    }
    text[strcspn(text, "\n")] = '\0';
    size_t digits = strspn(text, "0123456789");
    bool number = digits != 0 && text[digits] == '\0' && procfs_number_u64(text, digits, &value) &&
                  value != UINT64_MAX;
    return !number && strcmp(text, "max") != 0;
}

// sizes_check looks for sizes that no kernel writes; false after the source has said which.
static bool sizes_check(struct exam *exam, uint64_t begun)
{
    static const char *const names[][3] = {
        {"memory.usage_in_bytes", "memory.limit_in_bytes", NULL},
        {"memory.current", "memory.max", "memory.high"},
    };
    const struct facts_cgroup *cgroup = &exam->facts->cgroup;
    char text[32];
    for (size_t i = 0; i < 3; i++) {
        const char *name = names[cgroup->version - 1][i];
        if (name != NULL && size_absurd(cgroup, name, text, sizeof(text))) {
            text_printable(text);
            source_end(exam, SOURCE_CGROUP, begun, SOURCE_BROKEN,
                       "%s says \"%s\", which is no size", name, text);
            return false;
        }
    }
    return true;
}

void evidence_cgroup(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_cgroup *out = &exam->facts->cgroup;
    struct cgroup place;
    struct cgroup_memory memory;
    out->limit_bytes = UINT64_MAX;
    out->high_bytes = UINT64_MAX;
    out->pressure = PRESSURE_UNKNOWN;
    if (!cgroup_find_of(exam->options->root, exam->facts->pid, &place)) {
        source_end(exam, SOURCE_CGROUP, begun, SOURCE_ABSENT,
                   "no memory cgroup of this process is mounted here");
        return;
    }
    if (!cgroup_memory_read(&place, &memory)) {
        source_end(exam, SOURCE_CGROUP, begun, SOURCE_BROKEN, "%.120s has neither usage nor stat",
                   place.path);
        return;
    }
    out->version = place.version;
    out->asked = exam->options->asks_cgroup;
    snprintf(out->path, sizeof(out->path), "%s", place.path);
    snprintf(out->name, sizeof(out->name), "%s",
             place.path[place.mount_len] != '\0' ? place.path + place.mount_len : "/");
    out->root = cgroup_is_root(&place);
    if (!sizes_check(exam, begun)) {
        *out = (struct facts_cgroup){.limit_bytes = UINT64_MAX, .high_bytes = UINT64_MAX};
        out->pressure = PRESSURE_UNKNOWN;
        return;
    }
    out->limit_bytes = memory.limit_bytes;
    out->high_bytes = memory.high_bytes;
    out->usage_bytes = memory.usage_bytes;
    out->anon_bytes = memory.anon_bytes;
    out->file_bytes = memory.cache_bytes;
    out->shmem_bytes = memory.shmem_bytes;
    out->inactive_file_bytes = memory.inactive_file_bytes;
    out->active_file_bytes = memory.active_file_bytes;
    uint64_t lists = memory.inactive_file_bytes + memory.active_file_bytes;
    uint64_t cache = memory.cache_bytes - min_u64(memory.cache_bytes, memory.shmem_bytes);
    out->lazyfree_bytes = lists - min_u64(lists, cache);
    stat_rest(out);
    out->processes_count = out->root ? 0 : group_processes(out->path);
    out->alone = out->processes_count == 1;
    out->pressure = pressure_read(&place, exam->options->root);
    source_end(exam, SOURCE_CGROUP, begun, SOURCE_READ, NULL);
}
