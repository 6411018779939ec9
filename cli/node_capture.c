// SPDX-License-Identifier: MIT
//
// Captures of ebb node: what somebody will want to see afterwards, written when a limit is near.
//
// Of a process on Ebb: its heap profile, its ledger, the doctor's report; of any other one: the
// report. A child process does it: a target that does not answer, or answers nonsense, costs the
// node at most CAPTURE_SECONDS. Another one closes what was opened in the target, whatever became
// of the first. One capture in a round, cgroups first: a limit of Ebb is what its program says, and
// many of them must not keep the node from its rounds. Files get their names when they are whole. A
// crossing is captured once, and again only after the share has been below for some rounds: a
// process that dances around its limit fills no disk.
//
// Go  none; pprof is asked by whoever is awake.
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "look.h"
#include "node.h"
#include "prof.h"

// Both together are less than systemd waits for the end of a service, 90 s.
#define CAPTURE_SECONDS 45
#define CLOSE_SECONDS 30
// A crossing is over so many points below the share, or below half of it where that is higher.
#define CLEAR_PERCENT 5.0
#define CLEAR_ROUNDS 5
#define STEM_BYTES 96
#define MISSING_PROFILE 1u
#define MISSING_LEDGER 2u
#define MISSING_REPORT 4u

bool capture_check(const struct node_options *options)
{
    struct stat st;
    const char *dir = options->capture;
    if (dir == NULL) {
        return true;
    }
    if (stat(dir, &st) != 0 && (errno != ENOENT || mkdir(dir, 0700) != 0)) {
        cli_fail("node", "--capture: cannot make the folder %s: %s", dir, strerror(errno));
        return false;
    }
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode)) {
        cli_fail("node", "--capture: %s is no folder", dir);
        return false;
    }
    if (access(dir, W_OK | X_OK) != 0) {
        cli_fail("node", "--capture: cannot write into %s: %s", dir, strerror(errno));
        return false;
    }
    return true;
}

// ---- the child ----------------------------------------------------------------------------------

// Opens a file under a name that nobody takes for a finished one.
static FILE *file_open(const char *dir, const char *stem, const char *suffix, char *path)
{
    snprintf(path, PATH_MAX, "%s/.%s.%s.part", dir, stem, suffix);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "we") : NULL;
    if (file == NULL) {
        cli_warn("node", "cannot write %s: %s", path, strerror(errno));
    }
    return file;
}

static bool file_close(FILE *file, bool good, const char *dir, const char *stem, const char *suffix,
                       const char *path)
{
    char name[PATH_MAX];
    snprintf(name, sizeof(name), "%s/%s.%s", dir, stem, suffix);
    good = fflush(file) == 0 && good && fsync(fileno(file)) == 0;
    good = fclose(file) == 0 && good;
    if (!good || rename(path, name) != 0) {
        cli_warn("node", "cannot write %s: %s", name, strerror(errno));
        unlink(path);
        return false;
    }
    return true;
}

static bool json_write(json_t *json, const char *dir, const char *stem, const char *suffix)
{
    char path[PATH_MAX];
    FILE *file = json != NULL ? file_open(dir, stem, suffix, path) : NULL;
    bool good = file != NULL && json_dumpf(json, file, JSON_INDENT(2)) == 0;
    json_decref(json);
    return file != NULL && file_close(file, good, dir, stem, suffix, path);
}

static bool report_write(const struct node_process *process, const char *dir, const char *stem)
{
    static struct examination e;
    const struct doctor_options how = {0};
    bool series = process->trend.shape != TREND_UNKNOWN;
    if (doctor_look(process->pid, &how, &e.facts) != DOCTOR_OK) {
        cli_warn("node", "process %d cannot be looked at any more", process->pid);
        return false;
    }
    e.for_ns = series ? process->trend.span_ns : 0;
    verdicts_of(&e.facts, series ? &process->trend : NULL, &e.diagnosis);
    return json_write(doctor_json(&e), dir, stem, "doctor.json");
}

static bool ledger_write(int pid, const char *dir, const char *stem)
{
    struct ledger_target target;
    static struct ebb_ledger ledger;
    static struct ebb_memstats stats;
    struct ledger_extra extra;
    struct look_args args = {.command = "node", .pid = pid};
    if (look_open(&args, &target) != 0) {
        return false;
    }
    long error = ledger_read(&target, &ledger, &stats, &extra);
    if (error != 0) {
        look_fail(&args, error);
        return false;
    }
    return json_write(look_json_ledger(&target, &ledger, &stats, &extra), dir, stem, "ledger.json");
}

// What the child and the node share.
struct capturing {
    const struct node_process *process;
    const char *dir;
    char stem[STEM_BYTES];
    unsigned missing; // MISSING_*
    bool opened;      // the agent of the target, which was closed
};

// Asks the agent; true if it has answered. open: whether anything of it was open afterwards.
static bool agent_ask(int pid, const char *what, bool *open)
{
    static struct client_answer answer;
    struct target target;
    char number[16];
    char where[CONTROL_ARG_BYTES];
    struct control_request request = {.verb = CONTROL_ATTACH};
    snprintf(number, sizeof(number), "%d", pid);
    snprintf(request.arg, sizeof(request.arg), "%s", what);
    if (target_open(&target, "node", number) != 0 ||
        client_ask(&target, &request, false, &answer) != 0) {
        return false;
    }
    *open = control_reply_value(&answer.reply, "http", 0, where, sizeof(where)) ||
            control_reply_value(&answer.reply, "gops", 0, where, sizeof(where));
    return true;
}

// By the agent: where it is closed it is opened for as long as this takes. Where gops alone is open
// the rest stays open too, since they close together.
static bool profile_write(struct capturing *c)
{
    int pid = c->process->pid;
    struct prof_bytes bytes;
    char path[PATH_MAX];
    bool open;
    const struct prof_request request = {.kind = "heap"};
    // Where it listens is looked for among its sockets: what it says itself may be anywhere.
    const struct prof_source source = {.place = PROF_PID, .pid = pid};
    if (!agent_ask(pid, "none", &open)) {
        return false;
    }
    c->opened = !open; // before it is: should this be the end of the child
    if (!agent_ask(pid, "", &open) || prof_fetch(&source, &request, &bytes) != 0) {
        return false;
    }
    FILE *file = file_open(c->dir, c->stem, "heap.pb.gz", path);
    return file != NULL && file_close(file, fwrite(bytes.data, 1, bytes.count, file) == bytes.count,
                                      c->dir, c->stem, "heap.pb.gz", path);
}

static void capture_work(void *arg)
{
    struct capturing *c = arg;
    const struct node_process *process = c->process;
    if (report_write(process, c->dir, c->stem)) {
        c->missing &= ~MISSING_REPORT;
    }
    if (process->on_ebb && ledger_write(process->pid, c->dir, c->stem)) {
        c->missing &= ~MISSING_LEDGER;
    }
    if (process->on_ebb && profile_write(c)) {
        c->missing &= ~MISSING_PROFILE;
    }
}

static void close_work(void *arg)
{
    const struct capturing *c = arg;
    bool open;
    agent_ask(c->process->pid, "close", &open);
}

// ---- the ring -----------------------------------------------------------------------------------

// "20261121T154609Z-4711-name.": the length up to the dot; 0: no file of ours.
static size_t stem_len(const char *name)
{
    static const char pattern[] = "00000000T000000Z-";
    size_t at = name[0] == '.' ? 1 : 0;
    for (size_t i = 0; i < sizeof(pattern) - 1; i++) {
        char c = name[at + i];
        if (pattern[i] == '0' ? !isdigit((unsigned char)c) : c != pattern[i]) {
            return 0;
        }
    }
    const char *dot = strchr(name + at, '.');
    return dot != NULL ? (size_t)(dot - name) : 0;
}

static int is_ours(const struct dirent *entry)
{
    return stem_len(entry->d_name) != 0;
}

// Removes the oldest captures beyond those to keep; the names sort by time.
static void ring_trim(const char *dir, size_t keep)
{
    struct dirent **entries;
    char path[PATH_MAX];
    char last[STEM_BYTES * 2] = "";
    size_t captures = 0;
    int count = scandir(dir, &entries, is_ours, alphasort);
    for (int i = count - 1; i >= 0; i--) {
        const char *name = entries[i]->d_name;
        size_t len = stem_len(name);
        bool part = name[0] == '.'; // of a child that was ended
        if (!part && (strncmp(last, name, len) != 0 || last[len] != '\0')) {
            captures++;
            snprintf(last, sizeof(last), "%.*s", (int)min_size(len, sizeof(last) - 1), name);
        }
        if (part || captures > keep) {
            snprintf(path, sizeof(path), "%s/%s", dir, name);
            unlink(path);
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

// ---- crossing -----------------------------------------------------------------------------------

static void stem_make(const struct node_process *process, char *stem, size_t cap)
{
    char when[32];
    char name[32];
    struct tm tm;
    time_t now = time(NULL);
    strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    snprintf(name, sizeof(name), "%s", process->name);
    for (char *c = name; *c != '\0'; c++) {
        *c = isalnum((unsigned char)*c) || *c == '_' || *c == '-' ? *c : '_';
    }
    snprintf(stem, cap, "%s-%d-%s", when, process->pid, name);
}

static void outcome_text(const struct capturing *c, unsigned wanted, char *buf, size_t cap)
{
    if (c->missing == wanted) {
        snprintf(buf, cap, "nothing could be captured");
        return;
    }
    snprintf(buf, cap, "captured%s: %s/%s.*%s%s%s", c->missing == 0 ? "" : " in part", c->dir,
             c->stem, (c->missing & MISSING_REPORT) != 0 ? ", without a report" : "",
             (c->missing & MISSING_PROFILE) != 0 ? ", without a profile" : "",
             (c->missing & MISSING_LEDGER) != 0 ? ", without a ledger" : "");
}

static void capture(struct node *node, const struct node_process *process, const char *whose,
                    uint64_t used, uint64_t limit)
{
    const struct node_options *o = node->options;
    struct capturing *c = child_memory(sizeof(*c));
    char size[32];
    char size_limit[32];
    char outcome[PATH_MAX + 2 * STEM_BYTES];
    unsigned wanted = MISSING_REPORT | (process->on_ebb ? MISSING_LEDGER | MISSING_PROFILE : 0);
    c->process = process;
    c->dir = o->capture;
    c->missing = wanted;
    stem_make(process, c->stem, sizeof(c->stem));
    child_run(capture_work, c, CAPTURE_SECONDS);
    if (c->opened) {
        child_run(close_work, c, CLOSE_SECONDS);
    }
    ring_trim(o->capture, o->capture_keep);
    outcome_text(c, wanted, outcome, sizeof(outcome));
    cli_warn("node", "%s of process %d (%s), verdict %s: %s is %.0f %% of the limit %s; %s", whose,
             process->pid, process->name, node_verdict_name(process),
             size_text(used, size, sizeof(size)), 100.0 * (double)used / (double)limit,
             size_text(limit, size_limit, sizeof(size_limit)), outcome);
    if (c->missing != wanted) {
        node->captures_count++;
        node->captured_at_s = (uint64_t)time(NULL);
    }
    node->capture_failures_count += c->missing != 0;
    child_memory_free(c, sizeof(*c));
}

// Tells whether the share has just been crossed, and lets go when it has been below for long. may:
// whether it can be captured now; else it stays to be crossed.
static bool has_crossed(struct node_crossing *crossing, uint64_t used, uint64_t limit,
                        unsigned percent, bool may)
{
    double share = 100.0 * (double)used / (double)limit;
    double clear = percent > 2 * CLEAR_PERCENT ? percent - CLEAR_PERCENT : percent / 2.0;
    if (share >= (double)percent) {
        bool first = !crossing->crossed;
        *crossing = (struct node_crossing){.crossed = !first || may};
        return first && may;
    }
    crossing->below_count = share < clear ? crossing->below_count + 1 : 0;
    if (crossing->below_count >= CLEAR_ROUNDS) {
        crossing->crossed = false;
    }
    return false;
}

// The largest process of a cgroup, by the order of the list.
static const struct node_process *group_largest(const struct node *node, size_t group)
{
    for (size_t i = 0; i < node->count; i++) {
        if (node->processes[i].group == group && node->processes[i].state != NODE_ENDED) {
            return &node->processes[i];
        }
    }
    return NULL;
}

void capture_round(struct node *node)
{
    const struct node_options *o = node->options;
    const struct node_process *done = NULL; // in this round
    if (o->capture == NULL) {
        return;
    }
    for (size_t i = 0; i < node->groups_count; i++) {
        struct node_group *g = &node->groups[i];
        const struct node_process *process = group_largest(node, i);
        if (g->limit_bytes != UINT64_MAX && g->limit_bytes != 0 && process != NULL &&
            has_crossed(&g->crossing, g->used_bytes, g->limit_bytes, o->capture_percent,
                        done == NULL)) {
            capture(node, process, "the cgroup", g->used_bytes, g->limit_bytes);
            done = process;
        }
    }
    for (size_t i = 0; i < node->count; i++) {
        struct node_process *p = &node->processes[i];
        // One that was captured for its cgroup has been for its own limit too.
        if (p->limit_bytes != UINT64_MAX && p->limit_bytes != 0 && p->state != NODE_ENDED &&
            has_crossed(&p->crossing, p->rss_bytes, p->limit_bytes, o->capture_percent,
                        done == NULL || done == p) &&
            done == NULL) {
            capture(node, p, "the resident memory", p->rss_bytes, p->limit_bytes);
            done = p;
        }
    }
}
