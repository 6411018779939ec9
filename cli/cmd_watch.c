// SPDX-License-Identifier: MIT
//
// ebb watch: the ledger of one process over time, as a picture on a terminal, as lines elsewhere.
//
// Go  none: runtime/metrics has one moment, and leaves the picture to others.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "term.h"
#include "watch.h"

#define INTERVAL_MAX 3600
#define FOR_MAX 1000000
// The picture that stays when the command ends.
#define FINAL_ROWS 24
// What must have been given back between two readings to be marked.
#define RELEASE_BYTES_MIN MIB

enum { OPTION_FOR = 0x100, OPTION_PLAIN };

struct watch_input {
    struct look_args look;
    double interval;
    double seconds; // 0: till the process ends
    bool plain;
};

enum watch_end { END_NOT, END_QUIT, END_TIME, END_PROCESS, END_ERROR };

static volatile sig_atomic_t quit;
static volatile sig_atomic_t resized;

// ---- the command line --------------------------------------------------------------------------

static bool seconds_read(const char *option, const char *text, double least, double most,
                         double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || !(*out >= least && *out <= most)) {
        cli_fail("watch", "--%s=%s: seconds from %g to %.0f are wanted", option, text, least, most);
        return false;
    }
    return true;
}

static error_t watch_parse(int key, char *arg, struct argp_state *state)
{
    struct watch_input *input = state->input;
    switch (key) {
    case 'i':
        return seconds_read("interval", arg, 0.1, INTERVAL_MAX, &input->interval) ? 0 : CLI_SAID;
    case OPTION_FOR:
        return seconds_read("for", arg, 0.1, FOR_MAX, &input->seconds) ? 0 : CLI_SAID;
    case OPTION_PLAIN:
        input->plain = true;
        return 0;
    case 'j':
        input->look.json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (input->look.pid != 0) {
            return ARGP_ERR_UNKNOWN;
        }
        return look_pid_parse(&input->look, arg) ? 0 : CLI_SAID;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option watch_options[] = {
    {"interval", 'i', "SECONDS", 0, "Read every so many seconds (1)", 0},
    {"for", OPTION_FOR, "SECONDS", 0, "End after so many seconds", 0},
    {"plain", OPTION_PLAIN, NULL, 0, "Draw with letters, without colour", 0},
    {"json", 'j', NULL, 0, "Print as JSON, one line for each reading", 0},
    {0},
};

const struct argp cmd_watch_argp = {
    watch_options,
    watch_parse,
    "PID",
    "Watch where the resident bytes of a process are, over time. On a terminal the classes of ebb "
    "ledger are drawn as a stacked picture, with the numbers of the last reading beside it; "
    "elsewhere each reading is a line. P marks a change of policy, a triangle (v) memory that was "
    "given back. A line across is RSS where it is not what the classes add up to. Read from "
    "outside: the process does not stop."
    "\vExamples:\n"
    "  ebb watch 1234\n"
    "  ebb watch --interval 0.2 --for 30 $(pidof redis-server)\n"
    "  ebb watch --for 3600 --interval 10 1234 > night.txt\n"
    "  ebb watch --json 1234 | jq -c '[.rss_bytes, .classes.live_bytes]'\n"
    "\n"
    "Exit status: 0, also when the process ends; 125 if it is not there, may not be read, or does "
    "not run on Ebb.\n",
    NULL,
    NULL,
    NULL,
};

// ---- reading -----------------------------------------------------------------------------------

struct session {
    const struct watch_input *input;
    struct ledger_target target;
    struct watch watch;
    uint64_t released_bytes; // at the last reading
    uint64_t sys_bytes;      // too
    double started;
    struct ebb_ledger ledger;
    char events[2][96]; // of the last reading
    size_t event_count;
};

static double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void event_note(struct session *s, struct watch_reading *reading, unsigned mark,
                       const char *text)
{
    reading->marks |= mark;
    snprintf(s->events[s->event_count], sizeof(s->events[0]), "%s", text);
    snprintf(s->watch.event, sizeof(s->watch.event), "at %.0f s: %s", reading->seconds, text);
    s->event_count++;
}

// What differs from the last reading and is worth a mark.
static void events_find(struct session *s, struct watch_reading *reading,
                        const struct ebb_memstats *stats)
{
    char text[96];
    char bytes[LOOK_BYTES];
    struct ledger_page page;
    s->event_count = 0;
    if (ledger_read_memory(&s->target.reader, &page, s->target.page_addr, sizeof(page)) == 0) {
        page.policy[sizeof(page.policy) - 1] = '\0';
        s->watch.limit_bytes = load_relaxed(&page.limit_bytes);
        if (s->watch.count != 0 && strcmp(page.policy, s->watch.policy) != 0) {
            snprintf(text, sizeof(text), "policy %s -> %s", s->watch.policy, page.policy);
            event_note(s, reading, WATCH_POLICY, text);
        }
        memcpy(s->watch.policy, page.policy, sizeof(page.policy));
    }
    uint64_t most = max_u64(RELEASE_BYTES_MIN, reading->rss_bytes / 50);
    // Pages that a growing heap has not touched yet count as released too.
    uint64_t fresh = stats->heap_sys - min_u64(stats->heap_sys, s->sys_bytes);
    uint64_t before = s->released_bytes + fresh;
    if (s->watch.count != 0 && stats->heap_released > before + most) {
        snprintf(text, sizeof(text), "gave back %s",
                 look_bytes(stats->heap_released - before, bytes, sizeof(bytes)));
        event_note(s, reading, WATCH_RELEASE, text);
    }
    s->released_bytes = stats->heap_released;
    s->sys_bytes = stats->heap_sys;
}

static long reading_take(struct session *s)
{
    struct ebb_memstats stats;
    struct ledger_extra extra;
    struct watch_reading reading = {.seconds = now_seconds() - s->started};
    long error = ledger_read(&s->target, &s->ledger, &stats, &extra);
    // Between the end of a program and its parent's question there is nothing to read.
    if (error != 0 || s->ledger.rss_after == 0) {
        return error != 0 ? error : -ESRCH;
    }
    watch_sums(&s->ledger, &reading);
    events_find(s, &reading, &stats);
    watch_add(&s->watch, &reading);
    return 0;
}

// ---- lines -------------------------------------------------------------------------------------

static void line_print(const struct session *s)
{
    const struct watch_reading *now = &s->watch.readings[s->watch.count - 1];
    char text[LOOK_BYTES];
    if (s->watch.count == 1) {
        printf("%8s %11s", "SECONDS", "RSS");
        for (int i = 0; i < WATCH_SERIES; i++) {
            printf(" %11s", watch_series_infos[i].name);
        }
        printf(" %11s  %s\n", "UNEXPLAINED", "EVENTS");
    }
    printf("%8.1f %11s", now->seconds, look_bytes(now->rss_bytes, text, sizeof(text)));
    for (int i = 0; i < WATCH_SERIES; i++) {
        printf(" %11s", look_bytes(now->bytes[i], text, sizeof(text)));
    }
    uint64_t rest =
        (uint64_t)(now->unexplained_bytes < 0 ? -now->unexplained_bytes : now->unexplained_bytes);
    char signed_text[LOOK_BYTES + 1];
    snprintf(signed_text, sizeof(signed_text), "%s%s", now->unexplained_bytes < 0 ? "-" : "",
             look_bytes(rest, text, sizeof(text)));
    printf(" %11s", signed_text);
    for (size_t i = 0; i < s->event_count; i++) {
        printf("%s%s", i == 0 ? "  " : "; ", s->events[i]);
    }
    putchar('\n');
    fflush(stdout);
}

static json_int_t wall_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (json_int_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void json_line(json_t *root)
{
    if (root == NULL) {
        exit(cli_fail("watch", "out of memory"));
    }
    json_dumpf(root, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(root);
}

static void json_print(const struct session *s)
{
    json_t *events = json_array();
    for (size_t i = 0; i < s->event_count; i++) {
        json_array_append_new(events, json_string(s->events[i]));
    }
    json_line(json_pack("{s:I, s:i, s:s, s:s, s:I, s:o, s:I, s:I, s:o}", "time_ns", wall_ns(),
                        "pid", s->watch.pid, "name", s->watch.name, "policy", s->watch.policy,
                        "rss_bytes", (json_int_t)s->ledger.rss_after, "classes",
                        look_json_classes(&s->ledger), "sum_bytes", (json_int_t)s->ledger.sum,
                        "unexplained_bytes", (json_int_t)s->ledger.unexplained, "events", events));
}

// ---- the terminal ------------------------------------------------------------------------------

static struct termios terminal_was;
static bool terminal_changed;

static void terminal_restore(void)
{
    static const char sequence[] = "\033[?25h\033[?1049l";
    if (terminal_changed) {
        terminal_changed = false;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal_was);
        fputs(sequence, stdout);
        fflush(stdout);
    }
}

static void signal_note(int number)
{
    if (number == SIGWINCH) {
        resized = 1;
    } else {
        quit = 1;
    }
}

static void signals_take(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
    // Restarting: half a picture is no reason to fail. poll() ends all the same.
    const struct sigaction action = {.sa_handler = signal_note, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++) {
        sigaction(signals[i], &action, NULL);
    }
}

static void terminal_take(void)
{
    struct termios mode;
    if (tcgetattr(STDIN_FILENO, &terminal_was) == 0) {
        mode = terminal_was;
        mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        mode.c_cc[VMIN] = 0;
        mode.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &mode);
    }
    terminal_changed = true;
    fputs("\033[?1049h\033[?25l", stdout);
    atexit(terminal_restore);
}

static struct watch_look look_make(const struct session *s)
{
    struct term term = term_open(stdout);
    struct winsize size;
    const char *name = getenv("TERM");
    struct watch_look look = {.width = term.width, .height = FINAL_ROWS};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row != 0) {
        look.height = size.ws_row;
        look.width = size.ws_col;
    }
    look.utf8 = !s->input->plain && term_is_utf8();
    look.colour = !s->input->plain && term.colour;
    look.many_colours = look.colour && name != NULL && strstr(name, "256color") != NULL;
    look.footer = "q quit   P policy changed   v memory given back";
    if (look.utf8) {
        look.footer = "q quit   P policy changed   ▾ memory given back";
    }
    return look;
}

static void screen_draw(const struct session *s)
{
    const struct watch_look look = look_make(s);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        exit(cli_fail("watch", "out of memory"));
    }
    watch_draw(out, &s->watch, &look);
    fclose(out);
    // Line by line over what was there: no flicker.
    fputs("\033[H", stdout);
    for (size_t i = 0; i < len; i++) {
        fputs(text[i] == '\n' ? "\033[K\r\n" : (char[]){text[i], '\0'}, stdout);
    }
    fputs("\033[K\033[J", stdout);
    fflush(stdout);
    free(text);
}

// Waits till `due`; keys and a new size of the terminal are answered meanwhile.
static void wait_till(const struct session *s, double due, int screen)
{
    while (!quit) {
        double left = due - now_seconds();
        if (left <= 0) {
            return;
        }
        struct pollfd input = {.fd = screen ? STDIN_FILENO : -1, .events = POLLIN};
        // At most a second: a signal may come just before.
        int ready = poll(&input, 1, left < 1 ? (int)(left * 1000) + 1 : 1000);
        char key;
        if (ready > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')) {
            quit = 1;
        }
        if (resized && screen) {
            resized = 0;
            screen_draw(s);
        }
    }
}

// ---- the command -------------------------------------------------------------------------------

static enum watch_end run(struct session *s, int screen)
{
    double due = s->started;
    while (!quit) {
        if (reading_take(s) != 0) {
            return END_PROCESS;
        }
        if (s->input->look.json) {
            json_print(s);
        } else if (screen) {
            screen_draw(s);
        } else {
            line_print(s);
        }
        if (ferror(stdout)) {
            return END_ERROR;
        }
        due += s->input->interval;
        due = due < now_seconds() ? now_seconds() : due;
        if (s->input->seconds != 0 && due - s->started > s->input->seconds) {
            wait_till(s, s->started + s->input->seconds, screen);
            return quit ? END_QUIT : END_TIME;
        }
        wait_till(s, due, screen);
    }
    return END_QUIT;
}

// Why the process cannot be read any more, in a sentence.
static void end_text(const struct session *s, enum watch_end end, char *buf, size_t cap)
{
    char path[64];
    char bytes[LOOK_BYTES];
    double seconds = now_seconds() - s->started;
    struct ledger_target again;
    snprintf(path, sizeof(path), "/proc/%d", s->watch.pid);
    if (end != END_PROCESS) {
        snprintf(buf, cap, "Watched process %d (%s) for %.0f s; it runs on.", s->watch.pid,
                 s->watch.name, seconds);
        return;
    }
    const struct watch_reading *last =
        s->watch.count != 0 ? &s->watch.readings[s->watch.count - 1] : NULL;
    const char *what = "ended";
    long found = ledger_find(&again, s->watch.pid);
    if (found == 0) {
        what = "runs another program now; watch it anew: it was read";
    } else if (found == -EACCES || found == -EPERM) {
        what = "may not be read any more; it was read";
    }
    snprintf(buf, cap, "Process %d (%s) %s after %.1f s; RSS was %s.", s->watch.pid, s->watch.name,
             what, seconds, look_bytes(last != NULL ? last->rss_bytes : 0, bytes, sizeof(bytes)));
}

static void end_print(const struct session *s, enum watch_end end, int screen)
{
    char text[256];
    end_text(s, end, text, sizeof(text));
    if (s->input->look.json) {
        if (end == END_PROCESS) {
            json_line(json_pack("{s:I, s:i, s:s, s:b}", "time_ns", wall_ns(), "pid", s->watch.pid,
                                "name", s->watch.name, "ended", 1));
        }
        return;
    }
    if (screen) {
        // The last picture stays on the terminal.
        struct watch_look look = look_make(s);
        look.footer = NULL;
        look.height = look.height - 1 < FINAL_ROWS ? look.height - 1 : FINAL_ROWS;
        terminal_restore();
        watch_draw(stdout, &s->watch, &look);
    }
    puts(text);
}

int cmd_watch(const struct command *self, int argc, char **argv)
{
    struct watch_input input = {.look = {.command = self->name}, .interval = 1};
    int status = cli_parse(self, argc, argv, &input);
    if (status != CLI_GO_ON) {
        return status;
    }
    if (input.look.pid == 0) {
        return cli_fail(self->name, "which process? `ebb watch PID`; `ebb ps` lists those on Ebb");
    }
    struct session session = {.input = &input, .started = now_seconds()};
    session.watch.pid = input.look.pid;
    session.watch.limit_bytes = UINT64_MAX;
    status = look_open(&input.look, &session.target);
    if (status != 0) {
        return status;
    }
    look_name(input.look.pid, session.watch.name, sizeof(session.watch.name));
    if (!look_in_use(&session.target)) {
        cli_warn(self->name,
                 "process %d (%s) has Ebb loaded, but brings a malloc of its own: its "
                 "heap is other memory here",
                 input.look.pid, session.watch.name);
    }
    int screen = isatty(STDOUT_FILENO) == 1 && !input.look.json;
    signals_take();
    // The first reading before the terminal is changed: what is wrong is said in a line.
    long error = reading_take(&session);
    if (error != 0) {
        return look_fail(&input.look, error);
    }
    session.watch.count = 0;
    if (screen) {
        terminal_take();
    }
    enum watch_end end = run(&session, screen);
    if (end != END_ERROR) {
        end_print(&session, end, screen);
    }
    free(session.watch.readings);
    return 0;
}
