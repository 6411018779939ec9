// SPDX-License-Identifier: MIT
//
// ebb memstats: what `gops memstats` says of a Go program, of a program on Ebb, read from outside.
//
// Go  gops main.go memStats; agent.go handle, case signal.MemStats.
#include <stdio.h>

#include "look.h"
#include "stats/stats.h"

const struct argp cmd_memstats_argp = {
    look_options,
    look_parse,
    "PID",
    "Show the MemStats of a process that runs on Ebb: the lines of `gops memstats`, then what only "
    "Ebb has. Read from outside: the process does not stop, and no thread of it takes part."
    "\vExamples:\n"
    "  ebb memstats 1234\n"
    "  ebb memstats $(pidof redis-server) | grep heap-\n"
    "  ebb memstats --json 1234 | jq .memstats.HeapInuse\n"
    "\n"
    "Exit status: 0, or 125 if the process is not there, may not be read, or does not run on "
    "Ebb.\n",
    NULL,
    NULL,
    NULL,
};

static void bytes_line(struct fmt *out, const char *name, uint64_t bytes)
{
    fmt_str(out, name);
    memstats_bytes(out, bytes);
    fmt_char(out, '\n');
}

static void count_line(struct fmt *out, const char *name, uint64_t count)
{
    fmt_str(out, name);
    fmt_u64(out, count);
    fmt_char(out, '\n');
}

static void own_print(struct fmt *out, const struct ledger_target *target,
                      const struct ebb_memstats *s, const struct ledger_extra *extra)
{
    const struct ledger_page *page = &target->page;
    uint64_t limit_bytes = load_relaxed(&page->limit_bytes);
    bytes_line(out, "heap-released-lazily: ", s->heap_lazy);
    bytes_line(out, "heap-released-holes: ", extra->hole_bytes);
    bytes_line(out, "heap-cached: ", s->heap_cached);
    bytes_line(out, "heap-retained: ", extra->retained_bytes);
    bytes_line(out, "remote-frees: ", extra->remote_bytes);
    count_line(out, "large-blocks: ", s->large_count);
    bytes_line(out, "large-alloc: ", s->large_bytes);
    count_line(out, "spans: ", s->span_count);
    count_line(out, "threads: ", s->thread_count);
    fmt_str(out, "policy: ");
    fmt_str(out, page->policy);
    fmt_str(out, "\noptions: ");
    char options[512];
    look_options_text(target, options, sizeof(options));
    fmt_str(out, options[0] != '\0' ? options : "-");
    fmt_char(out, '\n');
    if (limit_bytes != UINT64_MAX) {
        bytes_line(out, "limit: ", limit_bytes);
    }
}

static void kernel_print(struct fmt *out, int pid, const struct ebb_memstats *s)
{
    struct ledger_rss kernel;
    if (!ledger_rss_read(pid, s->heap_lazy != 0, &kernel)) {
        fmt_str(out, "kernel-rss: unknown, /proc cannot be read\n");
        return;
    }
    bytes_line(out, "kernel-rss: ", kernel.rss_bytes);
    bytes_line(out, "kernel-anonymous: ", kernel.anon_bytes);
    if (kernel.by_rollup) {
        bytes_line(out, "kernel-lazyfree: ", kernel.lazyfree_bytes);
    } else {
        fmt_str(out, "kernel-lazyfree: not asked, the process is large\n");
    }
}

static void text_print(const struct ledger_target *target, const struct ebb_memstats *s,
                       const struct ledger_extra *extra)
{
    char buf[4096];
    struct fmt out;
    fmt_init(&out, buf, sizeof(buf));
    memstats_print_gops(&out, s);
    own_print(&out, target, s, extra);
    kernel_print(&out, target->reader.pid, s);
    if (!look_in_use(target)) {
        fmt_str(&out, "read-from: outside; Ebb is loaded but not in use\n");
    } else if (extra->moved_count + extra->refused_count == 0) {
        fmt_str(&out, "read-from: outside, while the process runs on\n");
    } else {
        fmt_str(&out, "read-from: outside, while the heap moved; totals may be off by ");
        fmt_u64(&out, extra->moved_count);
        fmt_str(&out, " allocations\n");
    }
    fputs(buf, stdout);
}

static int json_print(const struct ledger_target *target, const struct ebb_memstats *s,
                      const struct ledger_extra *extra)
{
    char name[64];
    char options[512];
    look_name(target->reader.pid, name, sizeof(name));
    look_options_text(target, options, sizeof(options));
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "pid", target->reader.pid, "name", name,
        "version", target->page.library, "policy", target->page.policy, "options", options, "state",
        look_in_use(target) ? "in use" : "loaded but not in use", "read_from", "outside",
        "memstats", look_json_memstats(s), "ebb", look_json_extra(s, extra));
    return look_json_print("memstats", root);
}

int cmd_memstats(const struct command *self, int argc, char **argv)
{
    struct look_args args;
    struct ledger_target target;
    struct ebb_memstats stats;
    struct ledger_extra extra;
    int status = look_args_read(self, argc, argv, &args);
    if (status != CLI_GO_ON) {
        return status;
    }
    status = look_open(&args, &target);
    if (status != 0) {
        return status;
    }
    long error = ledger_memstats_read(&target, &stats, &extra);
    if (error != 0) {
        return look_fail(&args, error);
    }
    if (args.json) {
        return json_print(&target, &stats, &extra);
    }
    text_print(&target, &stats, &extra);
    return 0;
}
