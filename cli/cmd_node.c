// SPDX-License-Identifier: MIT
//
// ebb node: what the doctor says of every process of a machine or container; once, or each minute
// for Prometheus, with captures of what comes near its limit.
//
// Go  none.
#include <ctype.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/option.h"
#include "node.h"
#include "os/clock.h"

#define BUDGET_MS 2000
#define BUDGET_MS_MAX 600000
#define EVERY_S 60
#define TOP 50
#define TOP_MAX 10000
#define MIN_BYTES (16 * MIB)
#define CAPTURE_PERCENT 80
#define CAPTURE_KEEP 10
#define CAPTURE_KEEP_MAX 10000

enum {
    KEY_CGROUP = 256,
    KEY_CONTAINER,
    KEY_POD,
    KEY_MIN,
    KEY_BUDGET,
    KEY_LISTEN,
    KEY_EVERY,
    KEY_TOP,
    KEY_CAPTURE,
    KEY_CAPTURE_AT,
    KEY_CAPTURE_KEEP,
};

static const struct argp_option options[] = {
    {"cgroup", KEY_CGROUP, "PATH", 0, "Only processes of this cgroup and those below it", 0},
    {"container", KEY_CONTAINER, "NAME", 0, "Only those of this container: [POD/]NAME or ID", 0},
    {"pod", KEY_POD, "NAME", 0, "Only those of this pod of Kubernetes: name or UID", 0},
    {"min", KEY_MIN, "SIZE", 0, "Look at processes as large as this (16MiB)", 0},
    {"budget", KEY_BUDGET, "MS", 0, "Look for at most so many milliseconds (2000)", 0},
    {"json", 'j', NULL, 0, "Print as JSON", 0},
    {"listen", KEY_LISTEN, "ADDR:PORT", 0, "Stay, and serve /metrics; PORT alone is 127.0.0.1", 0},
    {"every", KEY_EVERY, "TIME", 0, "With --listen: look each 60s", 0},
    {"top", KEY_TOP, "N", 0, "With --listen: metrics of N processes and cgroups (50)", 0},
    {"capture", KEY_CAPTURE, "DIR", 0, "With --listen: write profile and ledger near a limit", 0},
    {"capture-at", KEY_CAPTURE_AT, "SHARE", 0, "From this share of the limit on (80%)", 0},
    {"capture-keep", KEY_CAPTURE_KEEP, "N", 0, "Keep the last N captures (10)", 0},
    {0},
};

static bool every_take(const char *arg, uint64_t *ns)
{
    if (!cli_duration(arg, ns) || *ns < NS_PER_S) {
        cli_fail("node", "--every=%.40s is no time: 60s, 5m or 1h, at least 1s, at most a day",
                 arg);
        return false;
    }
    return true;
}

static bool min_take(const char *arg, uint64_t *bytes)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {{"", 1}, {"B", 1}, {"KiB", KIB}, {"MiB", MIB}, {"GiB", GIB}};
    char *end;
    errno = 0;
    unsigned long value = strtoul(arg, &end, 10);
    for (size_t i = 0; errno == 0 && isdigit((unsigned char)arg[0]) && i < ARRAY_COUNT(units);
         i++) {
        if (strcmp(end, units[i].name) == 0 && value <= UINT64_MAX / 2 / units[i].bytes) {
            *bytes = value * units[i].bytes;
            return true;
        }
    }
    cli_fail("node", "--min=%.40s is no size: 16MiB, 512KiB, 1GiB or bytes", arg);
    return false;
}

static bool share_take(const char *arg, unsigned *percent)
{
    char *end;
    unsigned long value = strtoul(arg, &end, 10);
    if (!isdigit((unsigned char)arg[0]) || (*end != '\0' && strcmp(end, "%") != 0) || value < 1 ||
        value > 100) {
        cli_fail("node", "--capture-at=%.40s is no share of a limit: 1%% to 100%%", arg);
        return false;
    }
    *percent = (unsigned)value;
    return true;
}

static bool option_take(struct node_options *o, int key, const char *arg)
{
    unsigned long value = 0;
    bool good;
    switch (key) {
    case KEY_CGROUP:
        return pick_take("node", &o->whom, PICK_CGROUP, arg);
    case KEY_CONTAINER:
        return pick_take("node", &o->whom, PICK_CONTAINER, arg);
    case KEY_POD:
        return pick_take("node", &o->whom, PICK_POD, arg);
    case KEY_MIN:
        return min_take(arg, &o->min_bytes);
    case KEY_BUDGET:
        good = cli_number("node", "budget", "milliseconds", arg, 1, BUDGET_MS_MAX, &value);
        o->budget_ns = value * NS_PER_MS;
        return good;
    case KEY_EVERY:
        return every_take(arg, &o->every_ns);
    case KEY_TOP:
        good = cli_number("node", "top", "processes", arg, 1, TOP_MAX, &value);
        o->top_count = value;
        return good;
    case KEY_CAPTURE_AT:
        return share_take(arg, &o->capture_percent);
    default:
        good = cli_number("node", "capture-keep", "captures", arg, 1, CAPTURE_KEEP_MAX, &value);
        o->capture_keep = value;
        return good;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct node_options *o = state->input;
    switch (key) {
    case 'j':
        o->json = true;
        return 0;
    case KEY_LISTEN:
        o->listen = arg;
        return 0;
    case KEY_CAPTURE:
        o->capture = arg;
        return 0;
    case KEY_CGROUP:
    case KEY_CONTAINER:
    case KEY_POD:
    case KEY_MIN:
    case KEY_BUDGET:
    case KEY_EVERY:
    case KEY_TOP:
    case KEY_CAPTURE_AT:
    case KEY_CAPTURE_KEEP:
        return option_take(o, key, arg) ? 0 : CLI_SAID;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cmd_node_argp = {
    options,
    parse,
    NULL,
    "Say of every process why its memory is as it is, in one table by verdict: what ebb doctor "
    "says of one. All processes are counted; those from --min on are looked at, the largest first, "
    "until the budget is used up. Nothing stops, nothing is asked of them. With --listen it stays, "
    "looks each minute and serves what it has seen to Prometheus; then it knows growth too."
    "\vExamples:\n"
    "  ebb node\n"
    "  ebb node --json | jq -r '.processes[] | select(.finding) | .sentence'\n"
    "  ebb node --container web\n"
    "  ebb node --cgroup /system.slice/nginx.service --min 1MiB\n"
    "  ebb node --listen 9709\n"
    "  ebb node --listen 9709 --capture /var/lib/ebb --capture-at 80%\n"
    "\n"
    "EXPLAINED is what of RSS the first verdict is about; for page cache, and tmpfs that is not "
    "mapped, what of its cgroup. SURE is how sure it is, LIMIT the share of the nearest limit that "
    "is used: of its cgroup, of one above it, or of Ebb. RSS counts memory that is shared once for "
    "each process.\n"
    "\n"
    "A container is found by its ID in /proc/PID/cgroup; by name through the files of docker, "
    "containerd, CRI-O and podman, which root may read; else by HOSTNAME, where the host name is "
    "not the machine's.\n"
    "\n"
    "Exit status: 0 nothing was found, 1 findings, 2 it cannot be told of any, 3 nothing could be "
    "looked at. With --listen 0 after SIGTERM or SIGINT, 3 if it could not begin.\n",
    NULL,
    NULL,
    NULL,
};

// ---- once ---------------------------------------------------------------------------------------

static int status_of(const struct node *node)
{
    bool told = false;
    bool seen = false;
    for (size_t i = 0; i < node->count; i++) {
        const struct node_process *p = &node->processes[i];
        if (p->finding) {
            return DOCTOR_FINDING;
        }
        seen |= p->state != NODE_SMALL;
        told |= p->verdicts_count != 0 && node_verdict_of(p) == VERDICT_HEALTHY;
    }
    return seen && !told ? DOCTOR_CANNOT_TELL : DOCTOR_HEALTHY;
}

static int run_once(struct node *node)
{
    if (!node_round(node) || node->count == 0) {
        cli_fail("node", "no process was found: %s", node->found.how);
        return DOCTOR_FAILED;
    }
    if (node->options->json) {
        if (node_json_print(node) != 0) {
            return DOCTOR_FAILED;
        }
    } else {
        node_text_print(node);
    }
    return status_of(node);
}

// ---- again and again ----------------------------------------------------------------------------

static volatile sig_atomic_t quit;

static void quit_note(int number)
{
    (void)number;
    quit = 1;
}

// The signals come only while nothing is being done: nothing is cut in the middle.
static void signals_set(sigset_t *waiting)
{
    const struct sigaction action = {.sa_handler = quit_note};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigprocmask(SIG_BLOCK, &blocked, waiting);
    sigdelset(waiting, SIGTERM);
    sigdelset(waiting, SIGINT);
}

// Waits at least for an instant: a round that is late must not keep a signal from coming.
static void wait_until(uint64_t due_ns, const sigset_t *waiting)
{
    uint64_t left;
    do {
        uint64_t now = clock_now_ns();
        left = due_ns - min_u64(now, due_ns);
        struct timespec time = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
        int ready = ppoll(NULL, 0, &time, waiting);
        left = ready < 0 && errno == EINTR ? left : 0;
    } while (left != 0 && !quit);
}

static int run_listening(struct node *node)
{
    const struct node_options *o = node->options;
    sigset_t waiting;
    size_t len;
    bool told = false;
    signals_set(&waiting); // before the server's thread, which has them blocked then
    struct serve *serve = serve_open(o->listen, o->every_ns);
    if (serve == NULL) {
        return DOCTOR_FAILED;
    }
    cli_warn("node", "serving http://%s/metrics, a look each %llu s", serve_address(serve),
             (unsigned long long)(o->every_ns / NS_PER_S));
    uint64_t due = clock_now_ns();
    while (!quit) {
        bool found = node_round(node);
        if (!found && !told) {
            cli_warn("node", "no process was found: %s", node->found.how);
        }
        told = !found;
        char *text = node_metrics_make(node, &len);
        if (text != NULL) {
            serve_text(serve, text, len);
        }
        capture_round(node); // which may take long: what is served is of this round already
        // A round that took longer than the interval is not made up for.
        uint64_t now = clock_now_ns();
        due += o->every_ns;
        due = due < now ? now : due;
        wait_until(due, &waiting);
    }
    serve_close(serve);
    return 0;
}

static bool options_agree(const struct node_options *o)
{
    if (o->listen != NULL && o->json) {
        cli_fail("node", "--json goes without --listen, which serves metrics");
        return false;
    }
    if (o->listen == NULL && (o->capture != NULL || o->every_ns != 0 || o->top_count != 0)) {
        cli_fail("node", "%s goes with --listen",
                 o->capture != NULL ? "--capture"
                 : o->every_ns != 0 ? "--every"
                                    : "--top");
        return false;
    }
    if (o->capture == NULL && (o->capture_percent != 0 || o->capture_keep != 0)) {
        cli_fail("node", "--capture-at and --capture-keep go with --capture DIR");
        return false;
    }
    return true;
}

int cmd_node(const struct command *self, int argc, char **argv)
{
    struct node_options o = {.min_bytes = MIN_BYTES, .budget_ns = BUDGET_MS * NS_PER_MS};
    struct node node = {.options = &o};
    int status = cli_parse(self, argc, argv, &o);
    if (status != CLI_GO_ON) {
        return status == 0 ? 0 : DOCTOR_FAILED;
    }
    if (!options_agree(&o)) {
        return DOCTOR_FAILED;
    }
    o.every_ns = o.every_ns == 0 ? EVERY_S * NS_PER_S : o.every_ns;
    o.top_count = o.top_count == 0 ? TOP : o.top_count;
    o.capture_percent = o.capture_percent == 0 ? CAPTURE_PERCENT : o.capture_percent;
    o.capture_keep = o.capture_keep == 0 ? CAPTURE_KEEP : o.capture_keep;
    if (!capture_check(&o)) {
        return DOCTOR_FAILED;
    }
    status = o.listen != NULL ? run_listening(&node) : run_once(&node);
    node_free(&node);
    return status;
}
