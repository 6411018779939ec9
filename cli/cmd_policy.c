// SPDX-License-Identifier: MIT
//
// ebb policy: which policy a running process follows, which there are, and putting another in
// force.
//
// Go  none: debug.SetGCPercent is the like, from inside.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "client.h"
#include "term.h"

#define CHOICES_MAX 32
#define CHOICE_BYTES 512
#define NAME_BYTES 64

struct policy_input {
    const char *pid;
    const char *name;
    bool json, force;
};

// One line "choice NAME HELP" of the answer, cut in two.
struct choice {
    char name[CHOICE_BYTES];
    const char *help;
};

static error_t policy_parse(int key, char *arg, struct argp_state *state)
{
    struct policy_input *input = state->input;
    switch (key) {
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
        if (input->name == NULL) {
            input->name = arg;
            return 0;
        }
        return ARGP_ERR_UNKNOWN;
    case ARGP_KEY_NO_ARGS:
        cli_fail("policy", "which process? Right is: ebb policy PID [NAME]");
        return CLI_SAID;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option policy_options[] = {
    {"json", 'j', NULL, 0, "Print the answer as JSON", 0},
    {"force", 'f', NULL, 0, "Ask also where a system call filter could end the process", 0},
    {0},
};

const struct argp cmd_policy_argp = {
    policy_options,
    policy_parse,
    "PID [NAME]",
    "Show by which policy a running process gives memory back, and which policies there are; with "
    "NAME, put that one in force. The process must run on Ebb and be yours, unless you are root."
    "\vExamples:\n"
    "  ebb policy 4711            what is in force, what could be\n"
    "  ebb policy 4711 now        give back whatever is free, at once, from now on\n"
    "  ebb policy 4711 --json | jq -r .policy\n"
    "\n"
    "The process is asked through a socket that it opens when a signal tells it to, and closes "
    "after a minute; see option control. Exit status: 0, or 125 if it could not be asked, or does "
    "not know the policy.\n",
    NULL,
    NULL,
    NULL,
};

static size_t choices_read(const struct client_answer *answer, struct choice *choices)
{
    size_t count = 0;
    while (count < CHOICES_MAX && control_reply_value(&answer->reply, "choice", count,
                                                      choices[count].name, CHOICE_BYTES)) {
        char *blank = strchr(choices[count].name, ' ');
        choices[count].help = "";
        if (blank != NULL) {
            *blank = '\0';
            choices[count].help = blank + 1;
        }
        count++;
    }
    return count;
}

// Is the name one of the choices? Says what is wrong if not.
static bool name_check(const struct target *target, const char *name, const struct choice *choices,
                       size_t count)
{
    const char *names[CHOICES_MAX];
    char list[CHOICE_BYTES] = "";
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        names[i] = choices[i].name;
        if (strcmp(names[i], name) == 0) {
            return true;
        }
        if (len < sizeof(list)) {
            len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i != 0 ? ", " : "",
                                    names[i]);
        }
    }
    const char *nearest = cli_nearest(name, names, count);
    if (nearest != NULL) {
        cli_fail(target->command, "process %d (%s) knows no policy \"%s\"; did you mean %s?",
                 target->pid, target->name, name, nearest);
    } else {
        cli_fail(target->command, "process %d (%s) knows no policy \"%s\"; there are %s",
                 target->pid, target->name, name, list);
    }
    return false;
}

static void table_print(const struct target *target, const char *policy,
                        const struct choice *choices, size_t count)
{
    struct term term = term_open(stdout);
    struct term_cell cells[(CHOICES_MAX + 1) * 2];
    char(*names)[NAME_BYTES] = calloc(count + 1, sizeof(*names));
    if (names == NULL) {
        exit(cli_fail("policy", "out of memory"));
    }
    printf("Process %d (%s) gives memory back by policy ", target->pid, target->name);
    term_text(&term, TERM_BOLD, policy, 0);
    fputs(".\n\n", stdout);
    cells[0] = (struct term_cell){"POLICY", TERM_FAINT};
    cells[1] = (struct term_cell){"WHAT IT DOES", TERM_FAINT};
    for (size_t i = 0; i < count; i++) {
        bool present = strcmp(choices[i].name, policy) == 0;
        snprintf(names[i], sizeof(names[i]), "%.60s%s", choices[i].name, present ? " *" : "");
        cells[2 * i + 2] = (struct term_cell){names[i], present ? TERM_NOTE : TERM_BOLD};
        cells[2 * i + 3] = (struct term_cell){choices[i].help, TERM_PLAIN};
    }
    const struct term_table table = {2, count + 1, cells};
    term_table_print(&term, &table);
    printf("\n* in force. Change it with ebb policy %d NAME.\n", target->pid);
    free(names);
}

static int json_print(const struct target *target, const char *was, const char *policy,
                      const struct choice *choices, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "name", choices[i].name, "help",
                                              choices[i].help, "in_force",
                                              strcmp(choices[i].name, policy) == 0));
    }
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:o}", "pid", target->pid, "name", target->name,
                             "policy", policy, "was", was, "policies", list);
    if (root == NULL) {
        return cli_fail("policy", "out of memory");
    }
    json_dumpf(root, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(root);
    return 0;
}

static int policy_change(struct target *target, const struct policy_input *input,
                         struct client_answer *answer)
{
    struct control_request request = {.verb = CONTROL_POLICY};
    snprintf(request.arg, sizeof(request.arg), "%s", input->name);
    return client_ask(target, &request, input->force, answer);
}

int cmd_policy(const struct command *self, int argc, char **argv)
{
    struct policy_input input = {0};
    int status = cli_parse(self, argc, argv, &input);
    if (status != CLI_GO_ON) {
        return status;
    }
    static struct choice choices[CHOICES_MAX];
    static struct client_answer answer;
    struct target target;
    char policy[CHOICE_BYTES] = "";
    char was[CHOICE_BYTES] = "";
    const struct control_request look = {.verb = CONTROL_POLICY};
    status = target_open(&target, self->name, input.pid);
    status = status != 0 ? status : client_ask(&target, &look, input.force, &answer);
    if (status != 0) {
        return status;
    }
    size_t count = choices_read(&answer, choices);
    if (input.name != NULL) {
        if (!name_check(&target, input.name, choices, count)) {
            return EXIT_EBB;
        }
        status = policy_change(&target, &input, &answer);
        if (status != 0) {
            return status;
        }
    }
    control_reply_value(&answer.reply, "policy", 0, policy, sizeof(policy));
    control_reply_value(&answer.reply, "was", 0, was, sizeof(was));
    if (input.json) {
        return json_print(&target, was, policy, choices, count);
    }
    if (input.name == NULL) {
        table_print(&target, policy, choices, count);
    } else {
        printf("Process %d (%s): policy %s, was %s.\n", target.pid, target.name, policy, was);
    }
    return 0;
}
