// SPDX-License-Identifier: MIT
//
// Numbers: /metrics and the JSON of MemStats and of the ledger.
//
// Flow
//   numbers_* -> memstats_look, ours_look, process_look -> metrics_print or jsonout_*.
//
// Go  client_golang's collectors, expvar. Unlike Go: the world of a large heap is not stopped.
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include "agent/agent_int.h"
#include "ledger/ledger.h"
#include "os/clock.h"
#include "os/procfs.h"
#include "os/sys.h"
#include "release/release.h"
#include "stats/stats.h"

// Reading MemStats exactly keeps threads from their slow paths for about 1.5 ms for each GiB of
// small blocks. With more pages in use than these (512 MiB) the heap is read while it runs on: the
// same numbers where it rests.
#define FREEZE_PAGES_MAX 65536
#define FDS_MAX 65536 // descriptors are counted up to here

#define JSON_BYTES (64 * KIB)

// Exact, or while the heap runs on; returns by how many blocks it may be off.
static uint64_t memstats_look(struct ebb_memstats *stats)
{
    struct pageheap_stats pages;
    struct ledger_target target;
    struct ledger_extra extra;
    pageheap_stats_read(&pageheap_main, &pages);
    if (pages.used_pages > FREEZE_PAGES_MAX && ledger_own_target(&target) &&
        ledger_memstats_read(&target, stats, &extra) == 0) {
        stats->heap_reinflated = min_u64(releaser_reinflated_bytes(), stats->heap_released);
        return extra.moved_count;
    }
    memstats_read(stats);
    return stats->skipped_count;
}

// --- the process ---

// What getdents64 writes.
struct fd_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

static uint64_t fds_count(void)
{
    char buf[4096] __attribute__((aligned(8)));
    uint64_t count = 0;
    // Of the process, not of this thread, whose table is another.
    long fd =
        sys_call4(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    while (fd >= 0 && count < FDS_MAX) {
        long len = sys_call3(SYS_getdents64, fd, buf, sizeof(buf));
        if (len <= 0) {
            break;
        }
        for (long at = 0; at < len;) {
            const struct fd_entry *entry = (const void *)(buf + at);
            count += entry->name[0] != '.';
            at += entry->bytes;
        }
    }
    if (fd >= 0) {
        sys_call1(SYS_close, fd);
    }
    return count;
}

static uint64_t limit_of(int resource)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    sys_call4(SYS_prlimit64, 0, resource, NULL, &limit);
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

static void process_look(struct metrics *metrics)
{
    struct procfs_memory memory = {0};
    struct timespec time = {0};
    struct timespec up = {0};
    uint8_t mask[1024];
    struct procfs_stat stat = {0};
    procfs_memory_read(0, &memory);
    procfs_stat_read(0, &stat);
    metrics->rss_bytes = memory.rss_bytes;
    metrics->virtual_bytes = memory.vm_size_bytes;
    metrics->threads_count = memory.threads_count;
    metrics->virtual_max_bytes = limit_of(RLIMIT_AS);
    metrics->fds_max = limit_of(RLIMIT_NOFILE);
    metrics->fds_count = fds_count();
    sys_call2(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &time);
    metrics->cpu_ns = (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
    sys_call2(SYS_clock_gettime, CLOCK_BOOTTIME, &up);
    uint64_t up_ns = (uint64_t)up.tv_sec * NS_PER_S + (uint64_t)up.tv_nsec;
    metrics->start_ns =
        clock_wall_ns() - up_ns + stat.start_ticks * (NS_PER_S / PROCFS_TICKS_PER_S);
    long bytes = sys_call3(SYS_sched_getaffinity, 0, sizeof(mask), mask);
    for (long i = 0; i < bytes; i++) {
        metrics->cpu_count += (uint64_t)__builtin_popcount(mask[i]);
    }
}

// --- /metrics ---

static void ours_look(struct metrics *metrics)
{
    struct limiter_report limit;
    struct release_totals totals;
    limiter_report(&limit);
    releaser_totals(&totals);
    metrics->limit_bytes = limit.limit_bytes;
    metrics->limit_used_bytes = limit.mapped_bytes;
    metrics->limit_assist_count = limit.assist_count;
    metrics->limit_refused_count = limit.refused_count;
    metrics->release_count = totals.count;
    metrics->released_bytes = totals.released_bytes;
    metrics->release_refused_bytes = totals.refused_bytes;
    metrics->agent_served_count = load_relaxed(&agent_main.served);
    metrics->agent_refused_count = load_relaxed(&agent_main.refused);
    metrics->agent_dropped_count = load_relaxed(&agent_main.dropped);
    metrics->agent_bad_count = load_relaxed(&agent_main.bad);
}

// A text of up to cap bytes in the answer's memory; false, and an error, without memory.
static bool text_begin(struct job *job, struct fmt *out, size_t cap)
{
    char *buf = region_alloc(&job->region, cap);
    if (buf == NULL) {
        answer_error(&job->answer, 500, "there is no memory for the numbers");
        return false;
    }
    fmt_init(out, buf, cap);
    return true;
}

static void text_end(struct job *job, const struct fmt *out, const char *type)
{
    if (out->truncated) {
        answer_error(&job->answer, 500, "the numbers do not fit");
        return;
    }
    job->answer.type = type;
    answer_bytes(&job->answer, out->buf, out->len);
}

void numbers_metrics(struct job *job)
{
    struct ebb_memstats stats;
    struct metrics metrics = {
        .mem = &stats,
        .version = "ebb" EBB_VERSION_TEXT,
        .policy = release_policies[releaser_policy_index()].name,
    };
    struct fmt out;
    metrics.inexact_count = memstats_look(&stats);
    ours_look(&metrics);
    process_look(&metrics);
    if (text_begin(job, &out, METRICS_BYTES)) {
        metrics_print(&out, &metrics);
        text_end(job, &out, "text/plain; version=0.0.4; charset=utf-8");
    }
}

// --- JSON ---

static void head_print(struct fmt *out)
{
    fmt_char(out, '{');
    jsonout_u64(out, "pid", load_relaxed(&agent_main.pid));
    jsonout_key(out, "version");
    jsonout_text(out, EBB_VERSION_TEXT);
    jsonout_key(out, "policy");
    jsonout_text(out, release_policies[releaser_policy_index()].name);
    jsonout_key(out, "read_from");
    jsonout_text(out, "inside");
    jsonout_u64(out, "time_ns", clock_wall_ns());
}

static void classes_print(struct fmt *out, const struct ebb_memstats *stats)
{
    jsonout_key(out, "BySize");
    fmt_char(out, '[');
    for (size_t i = 0; i < EBB_MEMSTATS_CLASSES; i++) {
        fmt_str(out, i != 0 ? ",{" : "{");
        jsonout_u64(out, "Size", stats->by_size[i].bytes);
        jsonout_u64(out, "Mallocs", stats->by_size[i].mallocs);
        jsonout_u64(out, "Frees", stats->by_size[i].frees);
        fmt_char(out, '}');
    }
    fmt_char(out, ']');
}

static void memstats_json(struct fmt *out, const struct ebb_memstats *stats, uint64_t inexact_count)
{
    jsonout_key(out, "memstats");
    fmt_char(out, '{');
    jsonout_u64(out, "Lookups", 0);
    jsonout_fields(out, jsonout_memstats_fields, stats);
    classes_print(out, stats);
    fmt_char(out, '}');
    jsonout_key(out, "ebb");
    fmt_char(out, '{');
    jsonout_u64(out, "heap_lazy_bytes", stats->heap_lazy);
    jsonout_u64(out, "heap_holes_bytes", stats->heap_holes);
    jsonout_u64(out, "heap_cached_bytes", stats->heap_cached);
    jsonout_u64(out, "heap_reinflated_bytes", stats->heap_reinflated);
    jsonout_u64(out, "heap_retained_bytes", stats->heap_sys - stats->heap_released);
    jsonout_u64(out, "large_count", stats->large_count);
    jsonout_u64(out, "large_bytes", stats->large_bytes);
    jsonout_u64(out, "span_count", stats->span_count);
    jsonout_u64(out, "thread_count", stats->thread_count);
    jsonout_u64(out, "moved_count", inexact_count);
    jsonout_key(out, "exact");
    fmt_str(out, inexact_count == 0 ? "true}" : "false}");
}

static void metrics_json(struct fmt *out, const struct metrics *m)
{
    jsonout_key(out, "limit");
    fmt_char(out, '{');
    jsonout_key(out, "limit_bytes");
    if (m->limit_bytes == UINT64_MAX) {
        fmt_str(out, "null");
    } else {
        fmt_u64(out, m->limit_bytes);
    }
    jsonout_u64(out, "used_bytes", m->limit_used_bytes);
    jsonout_u64(out, "assist_count", m->limit_assist_count);
    jsonout_u64(out, "refused_count", m->limit_refused_count);
    fmt_char(out, '}');
    jsonout_key(out, "release");
    fmt_char(out, '{');
    jsonout_u64(out, "count", m->release_count);
    jsonout_u64(out, "released_bytes", m->released_bytes);
    jsonout_u64(out, "refused_bytes", m->release_refused_bytes);
    fmt_char(out, '}');
    jsonout_key(out, "process");
    fmt_char(out, '{');
    jsonout_u64(out, "rss_bytes", m->rss_bytes);
    jsonout_u64(out, "virtual_bytes", m->virtual_bytes);
    jsonout_u64(out, "cpu_ns", m->cpu_ns);
    jsonout_u64(out, "start_ns", m->start_ns);
    jsonout_u64(out, "thread_count", m->threads_count);
    jsonout_u64(out, "fd_count", m->fds_count);
    fmt_char(out, '}');
    jsonout_key(out, "agent");
    fmt_char(out, '{');
    jsonout_u64(out, "served_count", m->agent_served_count);
    jsonout_u64(out, "refused_count", m->agent_refused_count);
    jsonout_u64(out, "dropped_count", m->agent_dropped_count);
    jsonout_u64(out, "bad_count", m->agent_bad_count);
    fmt_char(out, '}');
}

void numbers_stats(struct job *job)
{
    struct ebb_memstats stats;
    struct metrics metrics = {.mem = &stats};
    struct fmt out;
    uint64_t inexact_count = memstats_look(&stats);
    ours_look(&metrics);
    process_look(&metrics);
    if (!text_begin(job, &out, JSON_BYTES)) {
        return;
    }
    head_print(&out);
    memstats_json(&out, &stats, inexact_count);
    metrics_json(&out, &metrics);
    fmt_str(&out, "}\n");
    text_end(job, &out, "application/json");
}

static void beside_json(struct fmt *out, const struct ebb_ledger *ledger)
{
    jsonout_u64(out, "sum_bytes", ledger->sum);
    jsonout_u64(out, "rss_before_bytes", ledger->rss_before);
    jsonout_u64(out, "rss_after_bytes", ledger->rss_after);
    jsonout_key(out, "unexplained_bytes");
    fmt_i64(out, ledger->unexplained);
    jsonout_key(out, "rss_from");
    jsonout_text(out, ledger->rss_by_rollup != 0 ? "smaps_rollup" : "status");
    jsonout_key(out, "beside");
    fmt_char(out, '{');
    jsonout_u64(out, "holes_bytes", ledger->holes);
    jsonout_u64(out, "live_untouched_bytes", ledger->live_untouched);
    jsonout_u64(out, "huge_bytes", ledger->huge);
    jsonout_u64(out, "huge_back_bytes", ledger->huge_back);
    jsonout_u64(out, "lazyfree_bytes", ledger->lazyfree);
    jsonout_u64(out, "swap_bytes", ledger->swap);
    fmt_char(out, '}');
    jsonout_u64(out, "scan_count", ledger->scan_count);
}

bool numbers_ledger_print(struct fmt *out)
{
    struct ledger_target target;
    struct ebb_ledger ledger = {.size = sizeof(ledger)};
    struct ebb_memstats stats;
    struct ledger_extra extra;
    if (!ledger_own_target(&target) || ledger_read(&target, &ledger, &stats, &extra) != 0) {
        return false;
    }
    head_print(out);
    jsonout_key(out, "classes");
    fmt_char(out, '{');
    jsonout_fields(out, jsonout_ledger_fields, &ledger);
    fmt_char(out, '}');
    beside_json(out, &ledger);
    memstats_json(out, &stats, extra.moved_count);
    fmt_str(out, "}\n");
    return !out->truncated;
}

void numbers_ledger(struct job *job)
{
    struct fmt out;
    if (!text_begin(job, &out, JSON_BYTES)) {
        return;
    }
    if (!numbers_ledger_print(&out)) {
        answer_error(&job->answer, 500, "the ledger cannot be read: /proc/self is needed for it");
        return;
    }
    text_end(job, &out, "application/json");
}
