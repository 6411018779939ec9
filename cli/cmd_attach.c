// SPDX-License-Identifier: MIT
//
// ebb attach: opens the agent in a running process, and says how to ask it.
//
// Go  none: a Go program has to have its agent built in.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/address.h"
#include "cli.h"
#include "client.h"
#include "term.h"

struct attach_input {
    const char *pid;
    const char *http;
    bool gops, close, json, force;
};

static error_t http_check(const char *text)
{
    struct address address;
    if (address_parse(text, strlen(text), &address)) {
        return 0;
    }
    cli_fail("attach",
             "\"%s\" is no address; right are 127.0.0.1:PORT, localhost:PORT, [::1]:PORT, "
             "unix:/PATH",
             text);
    return CLI_SAID;
}

static error_t attach_parse(int key, char *arg, struct argp_state *state)
{
    struct attach_input *input = state->input;
    switch (key) {
    case 'H':
        input->http = arg;
        return http_check(arg);
    case 'g':
        input->gops = true;
        return 0;
    case 'c':
        input->close = true;
        return 0;
    case 'j':
        input->json = true;
        return 0;
    case 'f':
        input->force = true;
        return 0;
    case ARGP_KEY_ARG:
        if (input->pid == NULL) {
            input->pid = arg;
            return 0;
        }
        return ARGP_ERR_UNKNOWN;
    case ARGP_KEY_NO_ARGS:
        cli_fail("attach", "which process? Right is: ebb attach PID");
        return CLI_SAID;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option attach_options[] = {
    {"http", 'H', "ADDR", 0, "Answer HTTP at this address instead of a unix socket of its own", 0},
    {"gops", 'g', NULL, 0, "Answer gops, on a port of 127.0.0.1", 0},
    {"close", 'c', NULL, 0, "Close the agent again", 0},
    {"json", 'j', NULL, 0, "Print where it listens as JSON", 0},
    {"force", 'f', NULL, 0, "Ask also where a system call filter could end the process", 0},
    {0},
};

const struct argp cmd_attach_argp = {
    attach_options,
    attach_parse,
    "PID",
    "Open the agent in a running process: profiles for go tool pprof, metrics for Prometheus, "
    "pages for a browser, over HTTP; or gops. The process must run on Ebb and be yours, unless you "
    "are root, and the same holds for whoever asks the agent then."
    "\vExamples:\n"
    "  ebb attach 4711                          a unix socket, mode 0600\n"
    "  ebb attach 4711 --http 127.0.0.1:8090    for go tool pprof and a browser\n"
    "  ebb attach 4711 --gops                   for gops; with --http for both\n"
    "  ebb attach 4711 --close\n"
    "\n"
    "ADDR is 127.0.0.1:PORT, localhost:PORT, [::1]:PORT (port 0: any that is free) or unix:/PATH. "
    "Where HTTP is open already, nothing is opened without --http. Exit status: 0, or 125 if the "
    "process could not be asked or the address cannot be had.\n",
    NULL,
    NULL,
    NULL,
};

// One request; what is open afterwards is in the answer.
static int ask(struct target *target, const struct attach_input *input, const char *what,
               struct client_answer *answer)
{
    struct control_request request = {.verb = CONTROL_ATTACH};
    if (strlen(what) >= sizeof(request.arg)) {
        return cli_fail(target->command, "the address is longer than %zu bytes",
                        sizeof(request.arg) - 1);
    }
    memcpy(request.arg, what, strlen(what));
    return client_ask(target, &request, input->force, answer);
}

static int ask_all(struct target *target, const struct attach_input *input,
                   struct client_answer *answer)
{
    if (input->close) {
        return ask(target, input, "close", answer);
    }
    int status = 0;
    if (input->http != NULL || !input->gops) {
        status = ask(target, input, input->http != NULL ? input->http : "", answer);
    }
    if (status == 0 && input->gops) {
        status = ask(target, input, "gops", answer);
    }
    return status;
}

static void text_print(const struct target *target, const char *http, const char *gops)
{
    struct term term = term_open(stdout);
    if (http[0] == '\0' && gops[0] == '\0') {
        printf("Process %d (%s) has no agent.\n", target->pid, target->name);
        return;
    }
    if (http[0] != '\0') {
        printf("Process %d (%s) answers HTTP at ", target->pid, target->name);
        term_text(&term, TERM_BOLD, http, 0);
        printf("\n\n");
        if (strncmp(http, "unix:", 5) == 0) {
            printf("  curl --unix-socket %s http://localhost/debug/pprof/\n", http + 5);
        } else {
            printf("  go tool pprof http://%s/debug/pprof/heap\n", http);
            printf("  curl http://%s/metrics\n", http);
        }
    }
    if (gops[0] != '\0') {
        printf("%sProcess %d (%s) answers gops at ", http[0] != '\0' ? "\n" : "", target->pid,
               target->name);
        term_text(&term, TERM_BOLD, gops, 0);
        printf("\n\n  gops memstats %s\n", gops);
    }
}

static int json_print(const struct target *target, const char *http, const char *gops)
{
    json_t *root =
        json_pack("{s:i, s:s, s:s*, s:s*}", "pid", target->pid, "name", target->name, "http",
                  http[0] != '\0' ? http : NULL, "gops", gops[0] != '\0' ? gops : NULL);
    if (root == NULL) {
        return cli_fail("attach", "out of memory");
    }
    json_dumpf(root, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(root);
    return 0;
}

int cmd_attach(const struct command *self, int argc, char **argv)
{
    struct attach_input input = {0};
    int status = cli_parse(self, argc, argv, &input);
    if (status != CLI_GO_ON) {
        return status;
    }
    if (input.close && (input.http != NULL || input.gops)) {
        return cli_fail("attach", "--close goes neither with --http nor with --gops");
    }
    static struct client_answer answer;
    struct target target;
    char http[CONTROL_ARG_BYTES] = "";
    char gops[CONTROL_ARG_BYTES] = "";
    status = target_open(&target, self->name, input.pid);
    status = status != 0 ? status : ask_all(&target, &input, &answer);
    if (status != 0) {
        return status;
    }
    control_reply_value(&answer.reply, "http", 0, http, sizeof(http));
    control_reply_value(&answer.reply, "gops", 0, gops, sizeof(gops));
    if (input.json) {
        return json_print(&target, http, gops);
    }
    text_print(&target, http, gops);
    return 0;
}
