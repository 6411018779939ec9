// SPDX-License-Identifier: MIT
//
// Profiles by name: the index page, one of them, what changed in some seconds, the CPU profile.
//
// Flow
//   named_answer -> named_index, text_answer or named_binary -> profile_collect -> a writer; with
//   seconds=N delta_begin, and N seconds later delta_finish. named_cpu keeps a worker for its time.
//
// Go  net/http/pprof/pprof.go Index, handler.ServeHTTP, serveDeltaProfile, Profile.
#include <errno.h>
#include <string.h>

#include "agent/agent_int.h"
#include "base/fmt.h"
#include "release/release.h"
#include "stats/stats.h"

#define CPU_KIND "cpu"
#define CPU_PREFIX "Could not enable CPU profiling: "

static bool is_heap(const struct profile_kind *kind)
{
    return kind->text == PROFILE_TEXT_HEAP;
}

static void name_set(struct answer *answer, const char *name, const char *suffix)
{
    struct fmt text;
    fmt_init(&text, answer->name, sizeof(answer->name));
    fmt_str(&text, name);
    fmt_str(&text, suffix);
}

// Writes the set, gzip, as name.
static void binary_write(struct job *job, const struct profile_set *set, const char *name,
                         const char *suffix)
{
    job->answer.type = "application/octet-stream";
    name_set(&job->answer, name, suffix);
    if (!pprof_write(set, &job->answer.sink)) {
        answer_error(&job->answer, 500, "there is no memory to write the profile");
    }
}

// The kinds that record only when asked have a route of their own.
static bool is_listed(const struct profile_kind *kind)
{
    return kind->run == NULL;
}

// --- one of them, now ---

void named_binary(struct job *job, const char *name)
{
    struct profile_set set;
    const char *why = "it cannot be collected";
    const struct profile_kind *kind = profile_find(name, strlen(name));
    if (kind == NULL) {
        answer_error(&job->answer, 404, "Unknown profile");
        return;
    }
    if (profile_collect(kind, &set, SET_MAX, &why)) {
        binary_write(job, &set, kind->name, "");
    } else {
        answer_error(&job->answer, 500, why);
    }
    profile_set_end(&set);
}

static void text_answer(struct job *job, const struct profile_kind *kind)
{
    struct profile_set set;
    struct ebb_memstats stats;
    const char *why = "it cannot be collected";
    if (is_heap(kind)) {
        memstats_read(&stats); // before the samples, as Go does
    }
    if (!profile_collect(kind, &set, SET_MAX, &why)) {
        answer_error(&job->answer, 500, why);
    } else if (!proftext_write(&set, is_heap(kind) ? &stats : NULL, &job->answer.sink)) {
        answer_error(&job->answer, 500, "there is no memory to write the profile");
    }
    profile_set_end(&set);
}

// --- what changed ---

static void delta_end(struct job *job)
{
    if (job->earlier_made) {
        profile_set_end(&job->earlier);
        job->earlier_made = false;
    }
}

static void delta_begin(struct job *job, const struct profile_kind *kind, const char *text)
{
    int64_t seconds;
    const char *why = "it cannot be collected";
    struct answer *answer = &job->answer;
    if (!query_number(text, &seconds) || seconds <= 0) {
        answer_error(answer, 400, "invalid value for \"seconds\" - must be a positive integer");
    } else if (!kind->delta) {
        answer_error(answer, 400, "\"seconds\" parameter is not supported for this profile type");
    } else if (query_level(job->query, "debug") != 0) {
        answer_error(answer, 400, "seconds and debug params are incompatible");
    } else if (seconds > SECONDS_MAX) {
        answer_error(answer, 400, "\"seconds\" is at most 3600");
    } else {
        job->kind = kind;
        job->earlier_made = true;
        if (profile_collect(kind, &job->earlier, SET_MAX, &why)) {
            job->wait_ns = (uint64_t)seconds * NS_PER_S;
        } else {
            delta_end(job);
            answer_error(answer, 500, why);
        }
    }
}

static void delta_finish(struct job *job)
{
    struct profile_set later;
    const char *why = "it cannot be collected";
    if (!profile_collect(job->kind, &later, SET_MAX, &why)) {
        answer_error(&job->answer, 500, why);
    } else if (!profile_set_subtract(&later, &job->earlier)) {
        answer_error(&job->answer, 500, "there is no memory to compare the profiles");
    } else {
        binary_write(job, &later, job->kind->name, "-delta");
    }
    profile_set_end(&later);
    delta_end(job);
}

void named_answer(struct job *job)
{
    char text[32];
    if (job->step != 0) {
        if (job->gone) {
            delta_end(job);
        } else {
            delta_finish(job);
        }
        return;
    }
    if (job->tail[0] == '\0') {
        named_index(job);
        return;
    }
    const struct profile_kind *kind = profile_find(job->tail, strlen(job->tail));
    if (kind == NULL || !is_listed(kind)) {
        answer_error(&job->answer, 404, "Unknown profile");
        return;
    }
    if (query_find(job->query, "seconds", text, sizeof(text)) && text[0] != '\0') {
        delta_begin(job, kind, text);
        return;
    }
    if (strcmp(kind->name, "heap") == 0 && query_level(job->query, "gc") > 0) {
        agent_release();
    }
    if (query_level(job->query, "debug") != 0) {
        text_answer(job, kind);
    } else {
        named_binary(job, kind->name);
    }
}

// --- the CPU profile ---

static void cpu_error(struct job *job, const char *why)
{
    char buf[FMT_LINE_BYTES];
    struct fmt text;
    fmt_init(&text, buf, sizeof(buf));
    fmt_str(&text, CPU_PREFIX);
    fmt_str(&text, why);
    answer_error(&job->answer, 500, buf);
}

static const char *cpu_why(long error)
{
    switch (error) {
    case -EBUSY:
        return "cpu profiling already in use";
    case -EAGAIN:
        return "no real-time signal is free";
    case -EPERM:
        return "a system call filter was announced";
    case -ENOMEM:
        return "there is no memory";
    default:
        return "the kernel gives no timer";
    }
}

static void cpu_run(struct job *job, const struct profile_kind *kind, uint64_t duration_ns)
{
    struct profile_set set;
    profile_set_init(&set, kind, SET_MAX);
    long error = kind->run(&set, duration_ns, &job->stop);
    if (error != 0) {
        cpu_error(job, cpu_why(error));
    } else if (load_relaxed(&job->stop) == 0) {
        binary_write(job, &set, "profile", "");
    }
    profile_set_end(&set);
}

void named_cpu(struct job *job)
{
    char text[32];
    int64_t seconds = 0;
    uint32_t idle = 0;
    const struct profile_kind *kind = profile_find(CPU_KIND, sizeof(CPU_KIND) - 1);
    if (!query_find(job->query, "seconds", text, sizeof(text)) || !query_number(text, &seconds) ||
        seconds <= 0) {
        seconds = CPU_SECONDS;
    }
    if (seconds > SECONDS_MAX) {
        answer_error(&job->answer, 400, "\"seconds\" is at most 3600");
    } else if (kind == NULL || kind->run == NULL) {
        cpu_error(job, "this Ebb has no CPU profile");
    } else if (job->in_door) {
        cpu_error(job, "no thread may be started");
    } else if (!cas_acquire(&agent_main.cpu_busy, &idle, 1)) { // pairs with store_release below
        cpu_error(job, cpu_why(-EBUSY));
    } else {
        cpu_run(job, kind, (uint64_t)seconds * NS_PER_S);
        store_release(&agent_main.cpu_busy, 0); // pairs with cas_acquire above
    }
}

// --- the index ---

static const char index_table[] =
    "<table>\n<tr><th class=\"n\">Count</th><th>Profile</th><th>What it shows</th></tr>\n";

static void index_row(struct answer *answer, const char *name, const char *query, uint64_t count,
                      const char *help)
{
    answer_str(answer, "<tr><td class=\"n\">");
    answer_u64(answer, count);
    answer_str(answer, "</td><td><a href=\"");
    answer_html(answer, name);
    answer_str(answer, query);
    answer_str(answer, "\">");
    answer_html(answer, name);
    answer_str(answer, "</a></td><td>");
    answer_html(answer, help);
    answer_str(answer, "</td></tr>\n");
}

// What is listed besides the kinds: no kind records them.
static const struct {
    const char *name;
    const char *query;
    const char *help;
} index_others[] = {
    {"cmdline", "", "The command line, arguments divided by NUL."},
    {"profile", "?seconds=30", "Where processor time goes; takes 30 seconds, or seconds=N."},
    {"symbol", "", "Names of addresses, for go tool pprof."},
    {"trace", "", "Go's execution trace, which a C program does not have."},
};

// Rows sorted by name: kinds come sorted, the others are put in between.
static void index_rows(struct answer *answer)
{
    size_t other = 0;
    for (size_t i = 0;; i++) {
        const struct profile_kind *kind = profile_kind_at(i);
        while (other < ARRAY_COUNT(index_others) &&
               (kind == NULL || strcmp(index_others[other].name, kind->name) < 0)) {
            index_row(answer, index_others[other].name, index_others[other].query, 0,
                      index_others[other].help);
            other++;
        }
        if (kind == NULL) {
            return;
        }
        if (is_listed(kind)) {
            index_row(answer, kind->name, "?debug=1", kind->count != NULL ? kind->count() : 0,
                      kind->help);
        }
    }
}

void named_index(struct job *job)
{
    struct answer *answer = &job->answer;
    page_begin(answer, "/debug/pprof/");
    answer_str(answer, "<p>Set <code>debug=1</code> in the query for text, "
                       "leave it out for <code>go tool pprof</code>, set <code>seconds=N</code> "
                       "for what changes in N seconds.</p>\n");
    answer_str(answer, index_table);
    index_rows(answer);
    answer_str(answer, "</table>\n<p>Also here: <a href=\"/metrics\">/metrics</a>, "
                       "<a href=\"/debug/ebb/stats.json\">stats.json</a>, "
                       "<a href=\"/debug/ebb/ledger.json\">ledger.json</a>.</p>\n"
                       "</body>\n</html>\n");
}
