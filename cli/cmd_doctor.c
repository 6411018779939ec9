// SPDX-License-Identifier: MIT
//
// ebb doctor: says why a process's memory is as it is, from outside, without touching it.
//
// Go  none: gops and go tool pprof ask the program.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "doctor.h"
#include "look.h"
#include "os/clock.h"

#define SAMPLES_MAX 600
#define BUDGET_MAX_MS 600000
// Whoever watches a process has the second that a scan of so much memory takes.
#define SCAN_RSS_BYTES GIB

struct doctor_input {
    const char *pid;
    struct doctor_pick pick;
    const char *verify; // a file
    struct prof_source url;
    bool asks;      // its pprof server
    bool url_given; // false: to be found
    bool json, verbose, exact, scan, apply;
    uint64_t for_ns;
    uint64_t budget_ns;
};

enum {
    KEY_FOR = 256,
    KEY_EXACT,
    KEY_BUDGET,
    KEY_APPLY,
    KEY_VERIFY,
    KEY_URL,
    KEY_CGROUP,
    KEY_CONTAINER,
    KEY_POD,
    KEY_SCAN
};

static const struct argp_option options[] = {
    {"container", KEY_CONTAINER, "NAME", 0, "Look at its processes; also by ID, or POD/NAME", 0},
    {"pod", KEY_POD, "NAME", 0, "Look at the processes of a Kubernetes pod", 0},
    {"cgroup", KEY_CGROUP, "PATH", 0, "Look at the processes of a cgroup", 0},
    {"for", KEY_FOR, "TIME", 0, "Watch it so long, 30s or 5m: tells slope, wave and plateau", 0},
    {"url", KEY_URL, "URL", OPTION_ARG_OPTIONAL,
     "Ask its pprof server too, there or where it is found to listen", 0},
    {"apply", KEY_APPLY, NULL, 0, "Do what Ebb can do by itself, and look again", 0},
    {"verify", KEY_VERIFY, "FILE", 0, "Compare with a report that --json has saved", 0},
    {"exact", KEY_EXACT, NULL, 0, "Read what costs more than the budget too", 0},
    {"scan", KEY_SCAN, NULL, 0, "Look for blocks that no pointer leads to, in a heap of any size",
     0},
    {"budget", KEY_BUDGET, "MS", 0, "Look for at most so many milliseconds (80)", 0},
    {"verbose", 'v', NULL, 0, "Show each source with what it cost", 0},
    {"json", 'j', NULL, 0, "Print as JSON", 0},
    {0},
};

static bool url_take(struct doctor_input *input, const char *arg)
{
    input->url = prof_source_parse(arg);
    input->url_given = input->url.place == PROF_HTTP || input->url.place == PROF_UNIX;
    if (!input->url_given) {
        cli_fail("doctor", "--url=%.80s is no URL, host:port or unix:/path", arg);
    }
    return input->url_given;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct doctor_input *input = state->input;
    unsigned long ms;
    switch (key) {
    case KEY_CGROUP:
        return pick_take("doctor", &input->pick, PICK_CGROUP, arg) ? 0 : CLI_SAID;
    case KEY_CONTAINER:
        return pick_take("doctor", &input->pick, PICK_CONTAINER, arg) ? 0 : CLI_SAID;
    case KEY_POD:
        return pick_take("doctor", &input->pick, PICK_POD, arg) ? 0 : CLI_SAID;
    case 'j':
        input->json = true;
        return 0;
    case 'v':
        input->verbose = true;
        return 0;
    case KEY_EXACT:
        input->exact = true;
        return 0;
    case KEY_SCAN:
        input->scan = true;
        return 0;
    case KEY_URL:
        input->asks = true;
        return arg == NULL || url_take(input, arg) ? 0 : CLI_SAID;
    case KEY_APPLY:
        input->apply = true;
        return 0;
    case KEY_VERIFY:
        input->verify = arg;
        return 0;
    case KEY_FOR:
        if (!cli_duration(arg, &input->for_ns)) {
            cli_fail("doctor", "--for=%.40s is no time: 30s, 5m or 2h, at most a day", arg);
            return CLI_SAID;
        }
        return 0;
    case KEY_BUDGET:
        if (!cli_number("doctor", "budget", "milliseconds", arg, 1, BUDGET_MAX_MS, &ms)) {
            return CLI_SAID;
        }
        input->budget_ns = ms * NS_PER_MS;
        return 0;
    case ARGP_KEY_ARG:
        if (input->pid == NULL) {
            input->pid = arg;
            return 0;
        }
        return ARGP_ERR_UNKNOWN;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cmd_doctor_argp = {
    options,
    parse,
    "PID\n--container=NAME\n--pod=NAME\n--cgroup=PATH",
    "Say why the memory of a process is as it is: a leak, kept by its allocator, lazily freed, "
    "fragmented, or not memory of the process at all. It looks from outside, at any process, on "
    "Ebb or not: nothing in it stops, nothing is asked of it."
    "\vExamples:\n"
    "  ebb doctor 1234\n"
    "  ebb doctor --pod web-7f9c            each process of it, and the one that matters most\n"
    "  ebb doctor --for 30s 1234            is it a slope, a wave or a plateau?\n"
    "  ebb doctor --apply 1234              on Ebb: release, switch the policy, look again\n"
    "  ebb doctor --json 1234 > before.json\n"
    "  ebb doctor --verify before.json 5678 after it was restarted: did it help?\n"
    "  ebb doctor --json 1234 | jq '.verdicts[0]'\n"
    "\n"
    "Exit status: 0 healthy, 1 a finding, 2 it cannot be told, 3 nothing could be looked at.\n",
    NULL,
    NULL,
    NULL,
};

static int fail_error(int pid, const struct facts *facts, enum doctor_error error)
{
    const char *name = facts->process.name;
    switch (error) {
    case DOCTOR_NO_PROCESS:
        cli_fail("doctor", "there is no process %d; `ebb node` lists those there are", pid);
        break;
    case DOCTOR_ENDED:
        cli_fail("doctor", "process %d (%s) ended while it was looked at", pid,
                 name[0] != '\0' ? name : "?");
        break;
    case DOCTOR_KERNEL_THREAD:
        cli_fail("doctor", "process %d (%s) is a thread of the kernel: it has no memory of its own",
                 pid, name);
        break;
    case DOCTOR_ZOMBIE:
        cli_fail("doctor", "process %d (%s) has ended; its parent has not asked yet", pid, name);
        break;
    case DOCTOR_BROKEN:
        cli_fail("doctor", "/proc/%d/status makes no sense: %s", pid,
                 facts->sources[SOURCE_STATUS].why);
        break;
    default:
        cli_fail("doctor", "out of memory");
    }
    return DOCTOR_FAILED;
}

static void progress(uint64_t passed_ns, uint64_t for_ns, const struct sample *sample)
{
    char size[32];
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[Kwatching: %3.0f of %.0f s, RSS %s",
                (double)passed_ns / (double)NS_PER_S, (double)for_ns / (double)NS_PER_S,
                size_text(sample->rss_bytes, size, sizeof(size)));
    }
}

// watch takes samples until the time is over; the number of samples, 0 if the process has ended.
static size_t watch(const struct facts *facts, uint64_t for_ns, struct sample *samples)
{
    uint64_t step_ns = max_u64(for_ns / SAMPLES_MAX, NS_PER_S / 4);
    uint64_t begun = clock_now_ns();
    uint64_t next = begun;
    size_t count = 0;
    while (count < SAMPLES_MAX) {
        if (doctor_sample(facts, &samples[count]) != DOCTOR_OK) {
            count = 0;
            break;
        }
        uint64_t passed = samples[count++].at_ns - begun;
        progress(passed, for_ns, &samples[count - 1]);
        if (passed >= for_ns) {
            break;
        }
        next += step_ns;
        struct timespec at = {(time_t)(next / NS_PER_S), (long)(next % NS_PER_S)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    }
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
    return count;
}

// What a site had in an earlier look. That kept its largest sites only: one that is not among them
// had at most as much as the least of a full list, and is not said to have grown by more than what
// is certain.
static uint64_t site_had(const struct facts *before, const struct facts_site *site)
{
    for (size_t i = 0; i < before->sites_count; i++) {
        const struct facts_site *old = &before->sites[i];
        if (strcmp(old->name, site->name) == 0 && strcmp(old->caller, site->caller) == 0) {
            return old->bytes;
        }
    }
    uint64_t least = before->sites_count == SITES_MAX ? before->sites[SITES_MAX - 1].bytes : 0;
    return min_u64(site->bytes, least);
}

// What has grown at each site between two looks: the most grown first. Nothing, where the first
// look saw no sites.
static void sites_compare(const struct facts *before, struct facts *after)
{
    for (size_t i = 0; i < after->sites_count && before->sites_count != 0; i++) {
        struct facts_site *site = &after->sites[i];
        uint64_t had = site_had(before, site);
        uint64_t by = site->bytes > had ? site->bytes - had : had - site->bytes;
        site->grown_bytes = (int64_t)min_u64(by, INT64_MAX) * (site->bytes > had ? 1 : -1);
        for (size_t k = i; k > 0 && after->sites[k - 1].grown_bytes < after->sites[k].grown_bytes;
             k--) {
            struct facts_site moved = after->sites[k];
            after->sites[k] = after->sites[k - 1];
            after->sites[k - 1] = moved;
        }
    }
}

static struct doctor_options options_of(const struct doctor_input *input)
{
    return (struct doctor_options){
        .budget_ns = input->budget_ns,
        .exact = input->exact,
        .scan = input->scan,
        .asks_cgroup = input->pick.kind != PICK_PID,
    };
}

// look_and_ask looks, and asks the process itself where that is wanted.
static enum doctor_error look_and_ask(int pid, const struct doctor_input *input,
                                      struct facts *facts)
{
    const struct doctor_options how = options_of(input);
    enum doctor_error error = doctor_look(pid, &how, facts);
    if (error == DOCTOR_OK && input->asks &&
        !doctor_sites(input->url_given ? &input->url : NULL, facts)) {
        struct source *source = &facts->sources[SOURCE_SITES];
        source->state = SOURCE_ABSENT;
        snprintf(source->why, sizeof(source->why), "nothing there answers as pprof");
    }
    return error;
}

// A cgroup that was asked for by name, and whose numbers are none.
static bool cgroup_broken(const struct doctor_input *input, const struct facts *facts)
{
    const struct source *source = &facts->sources[SOURCE_CGROUP];
    if (input->pick.kind == PICK_PID || source->state != SOURCE_BROKEN) {
        return false;
    }
    cli_fail("doctor", "the cgroup of process %d makes no sense: %s", facts->pid, source->why);
    return true;
}

static enum doctor_error examine(int pid, const struct doctor_input *input, struct examination *out)
{
    static struct sample samples[SAMPLES_MAX];
    enum doctor_error error = look_and_ask(pid, input, &out->facts);
    out->for_ns = input->for_ns;
    if (error != DOCTOR_OK || input->for_ns == 0) {
        verdicts_of(&out->facts, NULL, &out->diagnosis);
        return error;
    }
    static struct facts before;
    before = out->facts;
    size_t count = watch(&before, input->for_ns, samples);
    if (count == 0) {
        return DOCTOR_ENDED;
    }
    struct doctor_input last = *input;
    last.scan = last.scan || before.process.rss_bytes <= SCAN_RSS_BYTES;
    error = look_and_ask(pid, &last, &out->facts);
    if (error == DOCTOR_OK && out->facts.process.start_ticks != before.process.start_ticks) {
        error = DOCTOR_ENDED; // and another has its number
    }
    sites_compare(&before, &out->facts);
    struct trend trend = trend_of(samples, count);
    verdicts_of(&out->facts, &trend, &out->diagnosis);
    return error;
}

// found: the container that it was picked by, or NULL.
static int report(const struct doctor_input *input, const struct examination *examination,
                  const struct found *found)
{
    int status = (int)doctor_status_of(&examination->diagnosis);
    if (!input->json) {
        doctor_text(examination, input->verbose);
        return status;
    }
    json_t *root = doctor_json(examination);
    if (found != NULL) {
        root = doctor_group_json(found, json_pack("[o]", root), status);
    }
    return look_json_print("doctor", root) == 0 ? status : DOCTOR_FAILED;
}

static int one_report(int pid, const struct doctor_input *input, const struct found *found)
{
    static struct examination examination;
    // Where standard output is JSON, nothing else may be on it.
    FILE *said = input->json ? stderr : stdout;
    enum doctor_error error = examine(pid, input, &examination);
    if (error != DOCTOR_OK) {
        return fail_error(pid, &examination.facts, error);
    }
    if (cgroup_broken(input, &examination.facts)) {
        return DOCTOR_FAILED;
    }
    if (input->apply) {
        static struct examination before;
        before = examination;
        enum apply_result result = doctor_apply(&before);
        if (result == APPLY_FAILED) {
            return DOCTOR_FAILED;
        }
        error = result == APPLY_DONE ? examine(pid, input, &examination) : DOCTOR_OK;
        if (error != DOCTOR_OK) {
            return fail_error(pid, &examination.facts, error);
        }
        if (result == APPLY_DONE) {
            doctor_compare(said, &before, &examination);
        }
    }
    if (input->verify != NULL && !doctor_verify(said, input->verify, &examination)) {
        return DOCTOR_FAILED;
    }
    return report(input, &examination, found);
}

// Reports on a container: on its only process, or on the one that matters most after a sentence on
// each; as JSON on all.
static int group_report(const struct doctor_input *input, const struct found *found)
{
    const struct doctor_options how = options_of(input);
    int pid = found->pids[0];
    int status = DOCTOR_HEALTHY;
    if (found->count > 1) {
        bool of_one = input->for_ns != 0 || input->asks || input->apply || input->verify != NULL;
        if (input->json && of_one) {
            cli_fail("doctor",
                     "--for, --url, --apply and --verify are for one process, and here are %zu: "
                     "name one by its PID, or leave out --json",
                     found->count);
            return DOCTOR_FAILED;
        }
        status = doctor_group(found, &how, input->json, &pid);
        if (status == DOCTOR_FAILED || input->json) {
            return status;
        }
    }
    return doctor_worse(status, one_report(pid, input, found));
}

int cmd_doctor(const struct command *self, int argc, char **argv)
{
    struct doctor_input input = {0};
    struct look_args who = {.command = self->name};
    struct found found = {0};
    int status = cli_parse(self, argc, argv, &input);
    if (status != CLI_GO_ON) {
        return status == 0 ? 0 : DOCTOR_FAILED;
    }
    if ((input.pid != NULL) == (input.pick.kind != PICK_PID)) {
        cli_fail("doctor", input.pid == NULL
                               ? "which process? `ebb doctor PID`; `ebb node` lists them"
                               : "a PID and the name of a container: which of them?");
        return DOCTOR_FAILED;
    }
    if (input.pid != NULL) {
        return look_pid_parse(&who, input.pid) ? one_report(who.pid, &input, NULL) : DOCTOR_FAILED;
    }
    status = doctor_find(&input.pick, &found) ? group_report(&input, &found) : DOCTOR_FAILED;
    found_free(&found);
    return status;
}
