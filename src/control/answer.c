// SPDX-License-Identifier: MIT
//
// What the control socket's requests do, and what is answered. Runs in the server's bare thread:
// the same calls as the releaser's thread makes, which needs nothing of libc's threads either.
//
// Go  none.
#include <string.h>

#include "agent/agent.h"
#include "base/option.h"
#include "control/control_int.h"
#include "ebb/ebb.h"
#include "os/sys.h"
#include "release/release.h"

static void answer_ping(struct fmt *out)
{
    control_reply_begin(out);
    control_reply_u64(out, "pid", load_relaxed(&control_page.pid));
    control_reply_text(out, "version", EBB_VERSION_STRING);
    control_reply_u64(out, "served", load_relaxed(&control_page.served));
    control_reply_u64(out, "refused", load_relaxed(&control_page.refused));
    control_reply_u64(out, "dropped", load_relaxed(&control_page.dropped));
    control_reply_u64(out, "bad", load_relaxed(&control_page.bad));
    control_reply_end(out);
}

// Index of the policy called name, or RELEASE_POLICY_COUNT.
static size_t policy_find(const char *name)
{
    size_t index = 0;
    while (index < RELEASE_POLICY_COUNT && strcmp(name, release_policies[index].name) != 0) {
        index++;
    }
    return index;
}

static void answer_policy(const char *name, struct fmt *out)
{
    size_t was = releaser_policy_index();
    if (name[0] != '\0') {
        size_t index = policy_find(name);
        if (index == RELEASE_POLICY_COUNT) {
            control_reply_error(out, "there is no such policy");
            return;
        }
        if (!releaser_set_policy(index)) {
            control_reply_error(out, "the process is in the middle of a fork; try again");
            return;
        }
    }
    control_reply_begin(out);
    control_reply_text(out, "was", release_policies[was].name);
    control_reply_text(out, "policy", release_policies[releaser_policy_index()].name);
    for (size_t i = 0; i < RELEASE_POLICY_COUNT; i++) {
        fmt_str(out, "choice ");
        control_reply_text(out, release_policies[i].name, release_policies[i].help);
    }
    control_reply_end(out);
}

static void answer_release(struct fmt *out)
{
    struct release_report report;
    uint64_t bytes = releaser_release_now("ebb release", &report);
    if (bytes == UINT64_MAX) {
        control_reply_error(out, "the process is in the middle of a fork; try again");
        return;
    }
    control_reply_begin(out);
    control_reply_u64(out, "released_bytes", bytes);
    control_reply_u64(out, "runs_bytes", report.runs_bytes);
    control_reply_u64(out, "holes_bytes", report.holes_bytes);
    control_reply_u64(out, "tables_bytes", report.tables_bytes);
    control_reply_u64(out, "lazy_bytes", report.lazy_bytes);
    control_reply_u64(out, "flushed_bytes", report.flushed_bytes);
    control_reply_u64(out, "pinned_bytes", report.pinned_bytes);
    control_reply_u64(out, "refused_bytes", report.refused_bytes);
    control_reply_u64(out, "held_bytes", report.held_bytes);
    control_reply_u64(out, "skipped_count", report.skipped_count);
    control_reply_u64(out, "took_ns", report.took_ns);
    control_reply_u64(out, "pause_ns_max", report.pause_ns_max);
    control_reply_text(out, "policy", release_policies[releaser_policy_index()].name);
    control_reply_end(out);
}

static void limit_line(struct fmt *out, const char *key, uint64_t bytes)
{
    if (bytes == 0 || bytes == UINT64_MAX) {
        control_reply_text(out, key, "off");
    } else {
        control_reply_u64(out, key, bytes);
    }
}

static void answer_limit(const char *text, struct fmt *out)
{
    struct limiter_report before;
    struct limiter_report after;
    uint64_t bytes = OPTION_LIMIT_OFF;
    limiter_report(&before);
    if (text[0] != '\0') {
        if (strcmp(text, "auto") == 0) {
            bytes = OPTION_LIMIT_AUTO;
        } else if (strcmp(text, "off") != 0 &&
                   (!control_number_parse(text, &bytes) || bytes == 0 || bytes >= INT64_MAX)) {
            control_reply_error(out, "a limit is a number of bytes above 0, auto, or off");
            return;
        }
        limiter_set(bytes);
    }
    limiter_report(&after);
    control_reply_begin(out);
    limit_line(out, "was", before.limit_bytes);
    limit_line(out, "limit", after.limit_bytes);
    control_reply_end(out);
}

// A unix socket beside the control socket: the same folder, the same number in front.
static void attach_default(struct fmt *out)
{
    const char *path = control_page.path;
    const char *name = strrchr(path, '/');
    const char *end = name != NULL ? strrchr(name, '.') : NULL;
    fmt_str(out, "unix:");
    fmt_strn(out, path, end != NULL ? (size_t)(end - path) : strlen(path));
    fmt_str(out, "-http.sock");
}

static void attach_where(struct fmt *out, const char *key, bool gops)
{
    char where[AGENT_WHERE_BYTES];
    agent_where(gops, where, sizeof(where));
    if (where[0] != '\0') {
        control_reply_text(out, key, where);
    }
}

static void answer_attach(const char *what, struct fmt *out)
{
    char own[AGENT_WHERE_BYTES];
    char open[AGENT_WHERE_BYTES];
    struct fmt text;
    long error = 0;
    agent_where(false, open, sizeof(open));
    if (what[0] == '\0') {
        fmt_init(&text, own, sizeof(own));
        attach_default(&text);
        what = open[0] != '\0' ? "none" : own; // open somewhere: that will do
    }
    if (strcmp(what, "close") == 0) {
        agent_close();
    } else if (strcmp(what, "none") != 0) {
        error = agent_open(what, NULL, 0);
    }
    if (error != 0) {
        control_reply_error(out, agent_error_text(error));
        return;
    }
    control_reply_begin(out);
    attach_where(out, "http", false);
    attach_where(out, "gops", true);
    control_reply_end(out);
}

void control_answer(const struct control_request *request, struct fmt *out)
{
    switch (request->verb) {
    case CONTROL_PING:
        answer_ping(out);
        break;
    case CONTROL_POLICY:
        answer_policy(request->arg, out);
        break;
    case CONTROL_RELEASE:
        answer_release(out);
        break;
    case CONTROL_LIMIT:
        answer_limit(request->arg, out);
        break;
    case CONTROL_ATTACH:
        answer_attach(request->arg, out);
        break;
    }
}
