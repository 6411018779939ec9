// SPDX-License-Identifier: MIT
//
// ebb top: all processes on Ebb, live, sorted by what is asked for.
//
// Model
//   Each round reads the list as ebb ps does. A history per process keeps what it had in the last
//   minute, from which its growth is worked out. A process that ends stays for some rounds, marked.
//   The lines are made as text once; ncurses or stdout shows them.
//
// Flow
//   cmd_top -> round_read (process_list_read, histories) -> order -> screen_draw or table_print.
//
// Why this way
//   Growth is of live bytes, not of RSS: what a program keeps, whatever the policy gives back.
//
// Go  none: gops lists once.
// Tests    test/cli/live_test.py
#include <locale.h>
#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "process_list.h"

#define INTERVAL_DEFAULT 2
#define INTERVAL_MAX 3600
#define GROWTH_SECONDS 60
#define HISTORY_COUNT 64
// For how long a process that ended is still shown.
#define ENDED_SECONDS 10

enum column {
    COLUMN_PID,
    COLUMN_RSS,
    COLUMN_LIVE,
    COLUMN_RETAINED,
    COLUMN_HOLES,
    COLUMN_LAZY,
    COLUMN_GROWTH,
    COLUMN_COUNT,
};

static const struct {
    const char *name; // for --sort
    const char *heading;
    int width;
    char key;
    int rank; // columns of a higher rank go first where the terminal is narrow
} columns[COLUMN_COUNT] = {
    [COLUMN_PID] = {"pid", "PID", 7, 'p', 0},
    [COLUMN_RSS] = {"rss", "RSS", 10, 'r', 0},
    [COLUMN_LIVE] = {"live", "LIVE", 10, 'l', 0},
    [COLUMN_RETAINED] = {"retained", "RETAINED", 10, 't', 2},
    [COLUMN_HOLES] = {"holes", "HOLES", 10, 'o', 4},
    [COLUMN_LAZY] = {"lazy", "LAZY", 10, 'z', 3},
    [COLUMN_GROWTH] = {"growth", "GROWTH/MIN", 11, 'g', 1},
};
#define POLICY_COLUMNS 8
#define COMMAND_COLUMNS_MIN 14

struct reading {
    double seconds;
    uint64_t live_bytes;
};

struct history {
    int pid;
    struct reading readings[HISTORY_COUNT]; // a ring
    size_t count;                           // ever
    double seen;                            // when it was last there
    struct process_row row;                 // as it was then
};

struct top {
    bool once, json;
    unsigned interval;
    enum column sort;
    bool reverse, paused;
    struct process_list list;
    struct history *histories;
    size_t history_count, history_cap;
    size_t *order; // of histories that are shown
    size_t shown_count;
    size_t first; // row at the top of the screen
    double now;
    char message[128]; // what happened last
};

static volatile sig_atomic_t quit;

// ---- the command line --------------------------------------------------------------------------

static error_t sort_parse(struct top *top, const char *arg)
{
    const char *names[COLUMN_COUNT];
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        names[i] = columns[i].name;
        if (strcmp(names[i], arg) == 0) {
            top->sort = (enum column)i;
            return 0;
        }
    }
    const char *nearest = cli_nearest(arg, names, COLUMN_COUNT);
    cli_fail("top", "--sort=%s: by pid, rss, live, retained, holes, lazy or growth%s%s%s", arg,
             nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
             nearest != NULL ? "?" : "");
    return CLI_SAID;
}

static error_t top_parse(int key, char *arg, struct argp_state *state)
{
    struct top *top = state->input;
    unsigned long number;
    switch (key) {
    case '1':
        top->once = true;
        return 0;
    case 'j':
        top->json = true;
        return 0;
    case 's':
        return sort_parse(top, arg);
    case 'i':
        if (!cli_number("top", "interval", "seconds", arg, 1, INTERVAL_MAX, &number)) {
            return CLI_SAID;
        }
        top->interval = (unsigned)number;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option top_options[] = {
    {"sort", 's', "COLUMN", 0, "pid, rss, live, retained, holes, lazy or growth", 0},
    {"interval", 'i', "SECONDS", 0, "Read every so many seconds (2)", 0},
    {"once", '1', NULL, 0, "Print one table and exit", 0},
    {"json", 'j', NULL, 0, "Print as JSON, one line for each reading", 0},
    {0},
};

const struct argp cmd_top_argp = {
    top_options,
    top_parse,
    NULL,
    "Watch all processes that run on Ebb: resident size, live blocks, what the heap retains, "
    "holes, lazily freed memory, and by how much the live blocks grew within a minute. Read from "
    "outside, as ebb ps does. Keys are shown at the bottom; q quits."
    "\vExamples:\n"
    "  ebb top\n"
    "  ebb top --sort growth --interval 10\n"
    "  ebb top --once | sort -k2\n"
    "  ebb top --json | jq -c '.processes[] | [.pid, .growth_bytes_per_minute]'\n"
    "\n"
    "Exit status: 0; 125 if /proc cannot be read, or the output is no terminal and neither --once "
    "nor --json is given.\n",
    NULL,
    NULL,
    NULL,
};

// ---- one round ---------------------------------------------------------------------------------

static double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct history *history_get(struct top *top, int pid)
{
    for (size_t i = 0; i < top->history_count; i++) {
        if (top->histories[i].pid == pid) {
            return &top->histories[i];
        }
    }
    if (top->history_count == top->history_cap) {
        size_t cap = top->history_cap * 2 + 16;
        top->histories = realloc(top->histories, cap * sizeof(*top->histories));
        top->order = realloc(top->order, cap * sizeof(*top->order));
        if (top->histories == NULL || top->order == NULL) {
            exit(cli_fail("top", "out of memory"));
        }
        top->history_cap = cap;
    }
    struct history *history = &top->histories[top->history_count++];
    memset(history, 0, sizeof(*history));
    history->pid = pid;
    return history;
}

// By how much live blocks grew, as if for a minute; false after one reading only.
static bool growth_of(const struct history *history, int64_t *out)
{
    size_t kept = min_size(history->count, HISTORY_COUNT);
    if (kept < 2) {
        return false;
    }
    const struct reading *last = &history->readings[(history->count - 1) % HISTORY_COUNT];
    const struct reading *first = last;
    for (size_t i = 2; i <= kept; i++) {
        const struct reading *reading = &history->readings[(history->count - i) % HISTORY_COUNT];
        if (last->seconds - reading->seconds > GROWTH_SECONDS + 0.5) {
            break;
        }
        first = reading;
    }
    double seconds = last->seconds - first->seconds;
    double change = (double)last->live_bytes - (double)first->live_bytes;
    *out = seconds > 0 ? (int64_t)(change * 60 / seconds) : 0;
    return seconds > 0;
}

static bool has_ended(const struct top *top, const struct history *history)
{
    return history->seen < top->now;
}

static int64_t sort_value(const struct history *history, enum column column)
{
    const struct process_row *row = &history->row;
    int64_t growth = 0;
    switch (column) {
    case COLUMN_RSS:
        return (int64_t)row->rss_bytes;
    case COLUMN_LIVE:
        return (int64_t)row->stats.heap_alloc;
    case COLUMN_RETAINED:
        return (int64_t)row->extra.retained_bytes;
    case COLUMN_HOLES:
        return (int64_t)row->extra.hole_bytes;
    case COLUMN_LAZY:
        return (int64_t)row->stats.heap_lazy;
    case COLUMN_GROWTH:
        return growth_of(history, &growth) ? growth : INT64_MIN;
    default:
        return -history->pid; // the smallest first
    }
}

static void order_make(struct top *top)
{
    top->shown_count = 0;
    for (size_t i = 0; i < top->history_count; i++) {
        // Insertion: there are few, and the order of the last round is nearly right.
        size_t at = top->shown_count++;
        int64_t value = sort_value(&top->histories[i], top->sort);
        while (at > 0) {
            int64_t before = sort_value(&top->histories[top->order[at - 1]], top->sort);
            if (top->reverse ? before <= value : before >= value) {
                break;
            }
            top->order[at] = top->order[at - 1];
            at--;
        }
        top->order[at] = i;
    }
}

static bool round_read(struct top *top)
{
    if (!process_list_read(&top->list)) {
        return false;
    }
    double before = top->now;
    top->now = now_seconds();
    for (size_t i = 0; i < top->list.count; i++) {
        const struct process_row *row = &top->list.rows[i];
        struct history *history = history_get(top, row->pid);
        history->readings[history->count++ % HISTORY_COUNT] =
            (struct reading){top->now, row->stats.heap_alloc};
        history->row = *row;
        history->seen = top->now;
    }
    size_t kept = 0;
    for (size_t i = 0; i < top->history_count; i++) {
        const struct history *history = &top->histories[i];
        if (history->seen == before && before < top->now) {
            snprintf(top->message, sizeof(top->message), "process %d (%.60s) ended", history->pid,
                     history->row.command);
        }
        if (top->now - history->seen <= ENDED_SECONDS) {
            top->histories[kept++] = *history;
        }
    }
    top->history_count = kept;
    order_make(top);
    return true;
}

// ---- lines -------------------------------------------------------------------------------------

// Which columns fit: those of the lowest ranks.
static int rank_fitting(int width)
{
    for (int rank = 4; rank > 0; rank--) {
        int used = POLICY_COLUMNS + 2 + COMMAND_COLUMNS_MIN;
        for (size_t i = 0; i < COLUMN_COUNT; i++) {
            used += columns[i].rank <= rank ? columns[i].width + 1 : 0;
        }
        if (used <= width) {
            return rank;
        }
    }
    return 0;
}

static void cell_make(const struct history *history, enum column column, char *buf, size_t cap)
{
    char text[LOOK_BYTES];
    int64_t growth;
    if (column == COLUMN_PID) {
        snprintf(buf, cap, "%d", history->pid);
    } else if (column != COLUMN_RSS && !history->row.in_use) {
        snprintf(buf, cap, "-");
    } else if (column != COLUMN_GROWTH) {
        look_bytes((uint64_t)sort_value(history, column), buf, cap);
    } else if (!growth_of(history, &growth)) {
        snprintf(buf, cap, "-");
    } else {
        uint64_t size = growth < 0 ? 0 - (uint64_t)growth : (uint64_t)growth;
        snprintf(buf, cap, "%s%s",
                 growth > 0   ? "+"
                 : growth < 0 ? "-"
                              : "",
                 look_bytes(size, text, sizeof(text)));
    }
}

#define LINE_BYTES (PROCESS_COMMAND_BYTES + 256)

// The command without the folders of its program: there is little room.
static const char *program_start(const char *command)
{
    size_t word = strcspn(command, " ");
    while (word > 0 && command[word - 1] != '/') {
        word--;
    }
    return command + word;
}

static void line_make(const struct top *top, const struct history *history, int rank, char *buf,
                      size_t cap)
{
    char cell[2 * LOOK_BYTES];
    char title[PROCESS_COMMAND_BYTES + 64];
    size_t len = 0;
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (columns[i].rank <= rank) {
            cell_make(history, (enum column)i, cell, sizeof(cell));
            len += (size_t)snprintf(buf + len, cap - len, "%*s ", columns[i].width, cell);
        }
    }
    process_title(&history->row, title, sizeof(title));
    snprintf(buf + len, cap - len, " %-*s %s%s", POLICY_COLUMNS, history->row.policy,
             has_ended(top, history) ? "(ended) " : "",
             history->row.in_use ? program_start(title) : title);
}

// ---- a table on standard output ----------------------------------------------------------------

static void table_print(const struct top *top)
{
    struct term term = term_open(stdout);
    bool terminal = isatty(STDOUT_FILENO) == 1;
    int rank = terminal ? rank_fitting(term.width) : 4;
    char line[LINE_BYTES];
    term_style_on(&term, TERM_FAINT);
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (columns[i].rank <= rank) {
            printf("%*s ", columns[i].width, columns[i].heading);
        }
    }
    printf(" %-*s COMMAND", POLICY_COLUMNS, "POLICY");
    term_style_off(&term, TERM_FAINT);
    fputc('\n', stdout);
    for (size_t i = 0; i < top->shown_count; i++) {
        line_make(top, &top->histories[top->order[i]], rank, line, sizeof(line));
        if (terminal) {
            term_cut(line, term.width);
        }
        puts(line);
    }
    if (top->shown_count == 0) {
        puts("No process that can be read runs on Ebb; `ebb run PROGRAM` starts one.");
    }
    if (top->list.unreadable_count != 0) {
        printf("\n%zu process%s could not be read: other users', or protected.\n",
               top->list.unreadable_count, top->list.unreadable_count == 1 ? "" : "es");
    }
}

static int json_print(const struct top *top)
{
    json_t *processes = json_array();
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    for (size_t i = 0; i < top->shown_count; i++) {
        const struct history *history = &top->histories[top->order[i]];
        int64_t growth;
        json_t *row = process_json(&history->row);
        json_object_set_new(row, "ended", json_boolean(has_ended(top, history)));
        json_object_set_new(row, "growth_bytes_per_minute",
                            growth_of(history, &growth) ? json_integer(growth) : json_null());
        json_array_append_new(processes, row);
    }
    json_t *root = json_pack("{s:I, s:o, s:I}", "time_ns",
                             (json_int_t)time.tv_sec * 1000000000 + time.tv_nsec, "processes",
                             processes, "unreadable_count", (json_int_t)top->list.unreadable_count);
    if (root == NULL) {
        return cli_fail("top", "out of memory");
    }
    json_dumpf(root, stdout, JSON_COMPACT);
    fputc('\n', stdout);
    json_decref(root);
    return fflush(stdout) == 0 ? 0 : EXIT_EBB;
}

// ---- the screen --------------------------------------------------------------------------------

enum { PAIR_HEADING = 1, PAIR_GROWS };

// Writes a line cut to the screen; blanks up to its end, so that attributes reach there.
static void line_put(int y, const char *text, attr_t attributes)
{
    char line[LINE_BYTES];
    snprintf(line, sizeof(line), "%s", text);
    if (COLS >= 3) {
        term_cut(line, COLS);
    }
    attron(attributes);
    mvaddstr(y, 0, line);
    for (int at = term_columns(line); at < COLS; at++) {
        addch(' ');
    }
    attroff(attributes);
}

static void summary_draw(const struct top *top)
{
    char text[LINE_BYTES];
    char rss_text[LOOK_BYTES];
    char live_text[LOOK_BYTES];
    uint64_t rss = 0;
    uint64_t live = 0;
    for (size_t i = 0; i < top->list.count; i++) {
        rss += top->list.rows[i].rss_bytes;
        live += top->list.rows[i].stats.heap_alloc;
    }
    int len = snprintf(text, sizeof(text), "ebb top  %zu process%s on Ebb  RSS %s  live %s  ",
                       top->list.count, top->list.count == 1 ? "" : "es",
                       look_bytes(rss, rss_text, sizeof(rss_text)),
                       look_bytes(live, live_text, sizeof(live_text)));
    if (top->paused) {
        snprintf(text + len, sizeof(text) - (size_t)len, "paused");
    } else {
        snprintf(text + len, sizeof(text) - (size_t)len, "every %u s", top->interval);
    }
    line_put(0, text, A_BOLD);
    snprintf(text, sizeof(text), "%s", top->message);
    if (top->list.unreadable_count != 0) {
        snprintf(text, sizeof(text),
                 "%s%s%zu process%s could not be read: other users', or "
                 "protected",
                 top->message, top->message[0] != '\0' ? "; " : "", top->list.unreadable_count,
                 top->list.unreadable_count == 1 ? "" : "es");
    }
    line_put(1, text, A_DIM);
}

static void heading_draw(const struct top *top, int rank)
{
    int x = 0;
    char text[64];
    line_put(2, "", COLOR_PAIR(PAIR_HEADING) | A_REVERSE);
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (columns[i].rank > rank) {
            continue;
        }
        bool sorted = (enum column)i == top->sort;
        attr_t attributes = A_REVERSE | (sorted ? A_BOLD | A_UNDERLINE : 0);
        snprintf(text, sizeof(text), "%*s", columns[i].width, columns[i].heading);
        if (x + columns[i].width <= COLS) {
            attron(attributes);
            mvaddstr(2, x, text);
            attroff(attributes);
        }
        x += columns[i].width + 1;
    }
    snprintf(text, sizeof(text), " %-*s COMMAND", POLICY_COLUMNS, "POLICY");
    if (COLS - x >= 3) {
        term_cut(text, COLS - x);
        attron(A_REVERSE);
        mvaddstr(2, x, text);
        attroff(A_REVERSE);
    }
}

static void keys_draw(void)
{
    static const char *const keys[] = {
        "q quit",   "sort by: r RSS", "l live",    "t retained",  "o holes",      "z lazy",
        "g growth", "p PID",          "i reverse", "space pause", "+ - interval",
    };
    char text[256] = "";
    size_t len = 0;
    // What does not fit is left out whole, not cut.
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        if ((int)(len + strlen(keys[i]) + 2) > COLS) {
            break;
        }
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len == 0 ? "" : "  ", keys[i]);
    }
    line_put(LINES - 1, text, A_DIM);
}

static void screen_draw(struct top *top)
{
    char line[LINE_BYTES];
    int rank = rank_fitting(COLS);
    erase();
    bool tall = LINES >= 6;
    int y = 0;
    if (tall) {
        summary_draw(top);
        heading_draw(top, rank);
        y = 3;
    }
    size_t room = (size_t)(LINES - y - (tall ? 1 : 0));
    size_t last = top->shown_count > room ? top->shown_count - room : 0;
    top->first = min_size(top->first, last);
    for (size_t i = top->first; i < top->shown_count && room > 0; i++, room--) {
        const struct history *history = &top->histories[top->order[i]];
        int64_t growth;
        attr_t attributes = has_ended(top, history) || !history->row.in_use ? A_DIM : A_NORMAL;
        if (attributes == A_NORMAL && growth_of(history, &growth) && growth > (int64_t)MIB) {
            attributes = COLOR_PAIR(PAIR_GROWS);
        }
        line_make(top, history, rank, line, sizeof(line));
        line_put(y++, line, attributes);
    }
    if (top->shown_count == 0 && LINES > y) {
        line_put(y, "No process that can be read runs on Ebb; `ebb run PROGRAM` starts one.",
                 A_NORMAL);
    }
    if (tall) {
        keys_draw();
    }
    refresh();
}

// Does what a key says; false if it says nothing.
static bool key_do(struct top *top, int key)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (key == columns[i].key) {
            top->sort = (enum column)i;
            order_make(top);
            return true;
        }
    }
    switch (key) {
    case 'q':
    case 'Q':
        quit = 1;
        return true;
    case 'i':
        top->reverse = !top->reverse;
        order_make(top);
        return true;
    case ' ':
        top->paused = !top->paused;
        return true;
    case '+':
        top->interval += top->interval < INTERVAL_MAX;
        return true;
    case '-':
        top->interval -= top->interval > 1;
        return true;
    case KEY_DOWN:
    case 'j':
        top->first++;
        return true;
    case KEY_UP:
    case 'k':
        top->first -= top->first > 0;
        return true;
    default:
        return key == KEY_RESIZE;
    }
}

// Waits till the next reading is due, and answers keys meanwhile.
static void keys_wait(struct top *top)
{
    double due = now_seconds() + top->interval;
    unsigned interval = top->interval;
    while (!quit) {
        double left = due - now_seconds();
        if ((left <= 0 || interval != top->interval) && !top->paused) {
            return;
        }
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        // At most a second: a signal may come just before.
        bool soon = left > 0 && left < 1;
        int ready = poll(&input, 1, soon ? (int)(left * 1000) + 1 : 1000);
        if (ready > 0 && (input.revents & (POLLHUP | POLLERR)) != 0) {
            quit = 1; // the terminal is gone
        }
        int key;
        while ((key = getch()) != ERR) {
            if (key_do(top, key) && !quit) {
                screen_draw(top);
            }
        }
    }
}

static void quit_note(int number)
{
    (void)number;
    quit = 1;
}

static int screen_run(struct top *top)
{
    const struct sigaction action = {.sa_handler = quit_note};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    if (isatty(STDOUT_FILENO) != 1 || isatty(STDIN_FILENO) != 1) {
        return cli_fail("top", "this is no terminal; --once prints one table, --json a line for "
                               "each reading");
    }
    setlocale(LC_CTYPE, "");
    if (!round_read(top)) {
        return cli_fail("top", "cannot read /proc: %s", strerror(errno));
    }
    SCREEN *screen = newterm(NULL, stdout, stdin);
    if (screen == NULL) {
        const char *name = getenv("TERM");
        return cli_fail("top",
                        "the terminal type \"%s\" (TERM) is not known here; --once prints "
                        "one table",
                        name != NULL ? name : "");
    }
    // After newterm, which has handlers of its own for some of them.
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++) {
        sigaction(signals[i], &action, NULL);
    }
    cbreak();
    noecho();
    nodelay(stdscr, TRUE);
    keypad(stdscr, TRUE);
    curs_set(0);
    const char *no_color = getenv("NO_COLOR");
    if (has_colors() && (no_color == NULL || no_color[0] == '\0')) {
        start_color();
        use_default_colors();
        init_pair(PAIR_HEADING, -1, -1);
        init_pair(PAIR_GROWS, COLOR_YELLOW, -1);
    }
    bool good = true;
    while (!quit && good) {
        screen_draw(top);
        keys_wait(top);
        good = quit || round_read(top);
    }
    endwin();
    delscreen(screen);
    return good ? 0 : cli_fail("top", "cannot read /proc: %s", strerror(errno));
}

int cmd_top(const struct command *self, int argc, char **argv)
{
    struct top top = {.interval = INTERVAL_DEFAULT, .sort = COLUMN_RSS};
    int status = cli_parse(self, argc, argv, &top);
    if (status != CLI_GO_ON) {
        return status;
    }
    if (!top.once && !top.json) {
        status = screen_run(&top);
    }
    for (bool more = top.once || top.json; more; more = !top.once && status == 0) {
        if (!round_read(&top)) {
            return cli_fail("top", "cannot read /proc: %s", strerror(errno));
        }
        status = 0;
        if (top.json) {
            status = json_print(&top);
        } else {
            table_print(&top);
        }
        if (!top.once && status == 0) {
            sleep(top.interval);
        }
    }
    process_list_free(&top.list);
    free(top.histories);
    free(top.order);
    return status;
}
