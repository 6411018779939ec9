// SPDX-License-Identifier: MIT
//
// ebb node: all processes of a machine, or of a container, by verdict; once, or again and again
// with metrics and captures.
//
// Model
//   A node is the list of processes with what is known of each, and the list of cgroups they are
//   in. A round brings both up to date: first what is cheap, of every process (status, cgroup);
//   then a sample and a look (doctor.h) of those that matter, the largest first, until the budget
//   of the round is used up. Those left out say so, and come first in the next round.
//   A process is known by its ID and its start, so that a new one under an old ID is new.
//   The samples of the last rounds are kept: with six of them a trend is told, and with it growth.
//
// Locking
//   One thread makes the rounds. The server's thread sees finished text only, under a lock of
//   node_serve.c. Looks, samples and captures are made by child processes (node_child.c): what goes
//   wrong there is their end alone.
//
// Flow
//   cmd_node -> node_round -> node_text_print or node_json_print.
//   --listen: serve_open -> (node_round -> metrics_make -> serve_text -> capture_round) each time.
//
// Why this way
//   A scrape never makes a look: whoever may reach the port can cost nothing.
//
// Go       none
// Tests    test/cli/node_test.py  test/system/node.py
#ifndef EBB_CLI_NODE_H
#define EBB_CLI_NODE_H

#include <jansson.h>

#include "cli.h"
#include "doctor.h"

// Trends are those of the last so many rounds.
#define NODE_SAMPLES 30
// A trend needs so many: doctor/trend.c.
#define NODE_SAMPLES_MIN 6
#define NODE_VERDICTS 4
#define NODE_NAME_BYTES 256
#define NODE_GROUP_BYTES 512

enum node_state {
    NODE_SMALL,  // below the size that matters: not looked at
    NODE_LOOKED, // in this round
    NODE_LEFT,   // the budget was used up; what is known is of an earlier round
    NODE_ENDED,  // while it was looked at
};

struct node_verdict {
    enum verdict_id id;
    enum confidence confidence;
    uint64_t bytes;
    bool of_cgroup; // the bytes are charged to its cgroup, not held by the process
    bool again;     // and counted there for another process: not to be added up
};

// A crossing of a limit: captured once, and not again before it has been below for a while.
struct node_crossing {
    bool crossed;
    unsigned below_count; // rounds
};

struct node_process {
    int pid;
    uint64_t start_ticks; // since the machine's start, as in stat
    uint64_t seen_round;
    char name[32];
    char command[NODE_NAME_BYTES];
    uint32_t uid;
    uint64_t rss_bytes, swap_bytes;
    size_t group; // index into node.groups
    enum node_state state;
    uint64_t looked_round; // the last one; 0: never
    uint64_t cost_ns;      // of the last look
    bool finding, refused;
    bool failed;                                 // the last look has ended its child
    bool failed_said;                            // one ever has
    struct node_verdict verdicts[NODE_VERDICTS]; // most bytes first
    size_t verdicts_count;                       // 0: never looked at, or small by now
    char sentence[VERDICT_LINE_BYTES];
    char type[VERDICT_LINE_BYTES]; // the command to type, or ""
    bool on_ebb;
    uint64_t limit_bytes; // of Ebb's own; UINT64_MAX: none
    struct trend trend;
    struct facts *facts; // of the last look; NULL: never
    struct sample *samples;
    size_t samples_count; // ever; a ring of NODE_SAMPLES
    struct node_crossing crossing;
};

// A memory cgroup with processes of the list in it.
struct node_group {
    char name[NODE_GROUP_BYTES]; // as in /proc/PID/cgroup
    char container[NODE_NAME_BYTES], pod[NODE_NAME_BYTES];
    char path[1024]; // "" if it is not mounted here
    uint64_t seen_round;
    uint64_t usage_bytes;
    // The limit of which most is used, its own or one above it, and what counts against that one.
    uint64_t limit_bytes, used_bytes; // UINT64_MAX: none
    uint64_t anon_bytes, cache_bytes, shmem_bytes;
    uint64_t processes_count;
    unsigned counted; // bits of enum verdict_id: what of it is in the sums already
    bool root;
    size_t mount_len; // of path: limits above it are not seen
    struct node_crossing crossing;
};

// The hierarchy with the memory controller, and where in it the names of /proc/PID/cgroup begin.
struct node_hierarchy {
    int version; // 0: there is none
    char mount[512];
    bool translates;  // we are in a namespace whose place is known
    char inside[512]; // that place, below the mount
};

struct node_options {
    struct doctor_pick whom; // PICK_PID: all
    uint64_t min_bytes;
    uint64_t budget_ns;
    uint64_t every_ns;
    size_t top_count; // processes and cgroups with metrics of their own
    bool json;
    const char *listen;  // NULL: once
    const char *capture; // directory; NULL: none
    unsigned capture_percent;
    size_t capture_keep;
};

struct node {
    const struct node_options *options;
    struct node_hierarchy hierarchy;
    struct found found;
    struct node_process *processes; // most resident bytes first, after a round
    size_t count, cap;
    struct node_group *groups;
    size_t groups_count, groups_cap;
    uint64_t round; // the number of this one, from 1
    // What this round has cost and left.
    uint64_t first_ns, look_ns; // the cheap pass, and the looks
    uint64_t looked_count, left_count, refused_count, small_count, small_bytes;
    uint64_t failures_count; // looks that ended their child, ever
    uint64_t captures_count, capture_failures_count;
    uint64_t captured_at_s; // seconds since 1970; 0: never
};

// node_round reads all anew. false: nothing was found, and node->found.how says why.
bool node_round(struct node *node);
void node_free(struct node *node);

// node_verdict_of is the first verdict; VERDICT_UNKNOWN where there is none.
enum verdict_id node_verdict_of(const struct node_process *process);
// node_verdict_name is the word for it in tables and labels: "small" and "left" where none was
// told.
const char *node_verdict_name(const struct node_process *process);
// node_group_worst is the process in a cgroup with the finding of most bytes; else the largest one
// that was looked at; NULL: none was.
const struct node_process *node_group_worst(const struct node *node,
                                            const struct node_group *group);
// node_group_share is what of its limit is used, 1 all of it; 0 without a limit.
double node_group_share(const struct node_group *group);
// node_limit_of is the limit of which most is used, of its cgroup or of Ebb, and what counts
// against it.
uint64_t node_limit_of(const struct node *node, const struct node_process *process,
                       uint64_t *used_bytes);

// node_group.c, for a round: once, for each process, for each group, and at its end.
void node_groups_open(struct node *node);
size_t node_group_of(struct node *node, int pid);
void node_group_read(const struct node *node, struct node_group *group);
void node_groups_forget(struct node *node);

// node_grow makes room for one more element than count; ends ebb where there is no memory.
void *node_grow(void *items, size_t count, size_t *cap, size_t bytes);

// node_child.c. child_run runs work(arg) in a child, for at most so many seconds; true if it came
// to its end. What it is to leave behind has to be in memory of child_memory, which both share.
bool child_run(void (*work)(void *arg), void *arg, unsigned seconds);
void *child_memory(size_t bytes);
void child_memory_free(void *memory, size_t bytes);

// node_text.c
void node_text_print(const struct node *node);
int node_json_print(const struct node *node);

// node_metrics.c: the text of /metrics, to be freed; NULL without memory.
char *node_metrics_make(const struct node *node, size_t *len);

// node_serve.c. serve_open listens; NULL after it has said why not. serve_text takes over text.
struct serve;
struct serve *serve_open(const char *where, uint64_t every_ns);
void serve_text(struct serve *serve, char *text, size_t len);
const char *serve_address(const struct serve *serve);
void serve_close(struct serve *serve);

// node_capture.c. capture_check says what is wrong with the directory; capture_round captures the
// first that has crossed its limit's share; others are left to the next round.
bool capture_check(const struct node_options *options);
void capture_round(struct node *node);

#endif
