// SPDX-License-Identifier: MIT
//
// What the doctor does by itself (ebb doctor --apply), and whether it helped (--verify): the same
// requests as ebb release and ebb policy, then a second look beside the prediction.
//
// Go  none: debug.FreeOSMemory is called by the program.
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "doctor.h"
#include "os/clock.h"

// A release is done within this time, and RSS is at rest when two readings are alike.
#define SETTLE_NS (UINT64_C(10) * NS_PER_S)
#define SETTLE_STEP_MS 250
// A prediction holds within 5 % of RSS, or 8 MiB: programs go on working meanwhile.
#define HOLDS_SHARE 0.05
#define HOLDS_BYTES (8 * MIB)

static const struct verdict *applicable(const struct diagnosis *diagnosis)
{
    for (size_t i = 0; i < diagnosis->count; i++) {
        if (diagnosis->verdicts[i].remedy != REMEDY_NONE) {
            return &diagnosis->verdicts[i];
        }
    }
    return NULL;
}

static bool ask(struct target *target, enum control_verb verb, const char *arg)
{
    static struct client_answer answer;
    struct control_request request = {.verb = verb};
    snprintf(request.arg, sizeof(request.arg), "%s", arg);
    return client_ask(target, &request, false, &answer) == 0;
}

// settle waits until RSS is at rest.
static void settle(int pid)
{
    const struct timespec step = {.tv_nsec = SETTLE_STEP_MS * 1000000L};
    uint64_t begun = clock_now_ns();
    uint64_t before = 0;
    uint64_t now = target_rss_bytes(pid);
    while (before != now && clock_now_ns() - begun < SETTLE_NS) {
        nanosleep(&step, NULL);
        before = now;
        now = target_rss_bytes(pid);
    }
}

enum apply_result doctor_apply(const struct examination *examination)
{
    const struct verdict *v = applicable(&examination->diagnosis);
    struct target target;
    char pid[16];
    if (v == NULL) {
        cli_warn("doctor", "nothing here that Ebb can do by itself: %s",
                 examination->facts.ebb.in_use ? "no verdict has such a remedy"
                                               : "the process does not run on Ebb");
        return APPLY_NOTHING;
    }
    snprintf(pid, sizeof(pid), "%d", examination->facts.pid);
    if (target_open(&target, "doctor", pid) != 0) {
        return APPLY_FAILED;
    }
    if (v->remedy == REMEDY_POLICY && !ask(&target, CONTROL_POLICY, v->remedy_arg)) {
        return APPLY_FAILED;
    }
    if (v->remedy_limit && !ask(&target, CONTROL_LIMIT, "auto")) {
        return APPLY_FAILED;
    }
    if (!ask(&target, CONTROL_RELEASE, "")) {
        return APPLY_FAILED;
    }
    settle(examination->facts.pid);
    return APPLY_DONE;
}

static bool holds(uint64_t predicted, uint64_t measured)
{
    double away = (double)predicted - (double)measured;
    double bound = HOLDS_SHARE * (double)predicted;
    bound = bound > (double)HOLDS_BYTES ? bound : (double)HOLDS_BYTES;
    return away <= bound && -away <= bound;
}

static bool still_there(const struct diagnosis *after, const char *name)
{
    for (size_t i = 0; i < after->count; i++) {
        if (strcmp(verdict_name(after->verdicts[i].id), name) == 0) {
            return true;
        }
    }
    return false;
}

// The numbers of a report that was saved as JSON.
struct saved {
    char verdict[32];
    uint64_t rss_bytes;
    uint64_t predicted_rss_bytes; // 0: it predicted nothing
};

static void outcome_print(FILE *out, const struct saved *before, const struct examination *after)
{
    char a[32];
    char b[32];
    char c[32];
    uint64_t now = after->diagnosis.account.rss_bytes;
    bool there = still_there(&after->diagnosis, before->verdict);
    fprintf(out, "RSS %s before, %s now", size_text(before->rss_bytes, a, sizeof(a)),
            size_text(now, b, sizeof(b)));
    if (before->predicted_rss_bytes != 0) {
        fprintf(out, "; %s was predicted: %s", size_text(before->predicted_rss_bytes, c, sizeof(c)),
                holds(before->predicted_rss_bytes, now) ? "it holds" : "it does not hold");
    }
    fprintf(out, ".\nThe verdict \"%s\" %s.\n\n", before->verdict,
            there ? "still stands" : "does not stand any more");
}

void doctor_compare(FILE *out, const struct examination *before, const struct examination *after)
{
    const struct verdict *v = applicable(&before->diagnosis);
    struct saved saved = {.rss_bytes = before->diagnosis.account.rss_bytes};
    v = v != NULL ? v : &before->diagnosis.verdicts[0];
    snprintf(saved.verdict, sizeof(saved.verdict), "%s", verdict_name(v->id));
    saved.predicted_rss_bytes = v->predicts ? v->predicted_rss_bytes : 0;
    outcome_print(out, &saved, after);
}

bool doctor_verify(FILE *out, const char *file, const struct examination *after)
{
    json_error_t error;
    const char *verdict = NULL;
    json_int_t rss = 0;
    json_int_t predicted = 0;
    json_t *root = json_load_file(file, 0, &error);
    if (root == NULL) {
        cli_fail("doctor", "--verify=%s cannot be read: %s", file, error.text);
        return false;
    }
    json_t *first = json_array_get(json_object_get(root, "verdicts"), 0);
    bool known =
        json_unpack(root, "{s:s, s:{s:I}}", "verdict", &verdict, "account", "rss_bytes", &rss) == 0;
    (void)json_unpack(first, "{s:I}", "predicted_rss_bytes", &predicted);
    if (!known || rss < 0 || predicted < 0) {
        cli_fail("doctor", "--verify=%s is no report: `ebb doctor --json PID > FILE` makes one",
                 file);
        json_decref(root);
        return false;
    }
    struct saved saved = {.rss_bytes = (uint64_t)rss, .predicted_rss_bytes = (uint64_t)predicted};
    snprintf(saved.verdict, sizeof(saved.verdict), "%.31s", verdict);
    term_clean(saved.verdict); // a file may say anything
    outcome_print(out, &saved, after);
    json_decref(root);
    return true;
}
