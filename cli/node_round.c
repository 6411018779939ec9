// SPDX-License-Identifier: MIT
//
// A round of ebb node: the cheap pass over every process, then looks at those that matter.
//
// Go  none.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "look.h"
#include "node.h"
#include "os/clock.h"
#include "os/procfs.h"

#define TEXT_BYTES 4096
// A look that gets less than this tells little: better none.
#define LOOK_NS_MIN (2 * NS_PER_MS)
// What a second look may take, where the first one has left something out.
#define SECOND_NS (500 * NS_PER_MS)
// A look bounds itself; this is for one that hangs.
#define LOOK_SECONDS 20
// A process that takes long is told of on a terminal from here on.
#define PROGRESS_NS NS_PER_S

static _Noreturn void out_of_memory(void)
{
    cli_fail("node", "out of memory");
    exit(DOCTOR_FAILED);
}

// ---- the cheap pass -----------------------------------------------------------------------------

static void process_free(struct node_process *process)
{
    free(process->facts);
    free(process->samples);
}

static void status_name(const char *text, char *name, size_t cap)
{
    int len = 0;
    if (strncmp(text, "Name:\t", 6) == 0) {
        len = (int)strcspn(text + 6, "\n");
        snprintf(name, cap, "%.*s", len, text + 6);
    }
    term_clean(name);
}

static int pid_compare(const void *a, const void *b)
{
    const struct node_process *pa = a;
    const struct node_process *pb = b;
    return (pa->pid > pb->pid) - (pa->pid < pb->pid);
}

// known: how many of the list are of earlier rounds; these are sorted by PID.
static struct node_process *process_get(struct node *node, size_t known, int pid, uint64_t ticks)
{
    const struct node_process key = {.pid = pid};
    struct node_process *old =
        known != 0 ? bsearch(&key, node->processes, known, sizeof(key), pid_compare) : NULL;
    if (old != NULL && old->start_ticks == ticks) {
        return old;
    }
    node->processes = node_grow(node->processes, node->count, &node->cap, sizeof(*node->processes));
    struct node_process *process = &node->processes[node->count++];
    *process = (struct node_process){
        .pid = pid, .start_ticks = ticks, .limit_bytes = UINT64_MAX, .state = NODE_SMALL};
    look_command(pid, process->command, sizeof(process->command));
    return process;
}

static void process_read(struct node *node, size_t known, int pid)
{
    char path[64];
    char text[TEXT_BYTES];
    struct procfs_memory memory;
    struct procfs_stat stat;
    uint64_t uid = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    long len = procfs_file_read(path, text, sizeof(text));
    if (len <= 0 || !procfs_status_parse(text, (size_t)len, &memory) || memory.vm_size_bytes == 0 ||
        !procfs_stat_read(pid, &stat)) {
        return; // ended, a zombie, or a thread of the kernel
    }
    struct node_process *process = process_get(node, known, pid, stat.start_ticks);
    (void)procfs_field_u64(text, (size_t)len, "Uid:", &uid);
    status_name(text, process->name, sizeof(process->name));
    process->uid = (uint32_t)uid;
    process->rss_bytes = memory.rss_bytes;
    process->swap_bytes = memory.swap_bytes;
    process->seen_round = node->round;
    process->state = NODE_SMALL;
    process->group = node_group_of(node, pid);
    struct node_group *group = &node->groups[process->group];
    if (group->seen_round != node->round) {
        group->seen_round = node->round;
        group->processes_count = 0;
        node_group_read(node, group);
    }
    group->processes_count++;
}

static int size_compare(const void *a, const void *b)
{
    const struct node_process *pa = a;
    const struct node_process *pb = b;
    return (pa->rss_bytes < pb->rss_bytes) - (pa->rss_bytes > pb->rss_bytes);
}

static bool cheap_pass(struct node *node)
{
    size_t kept = 0;
    size_t known = node->count;
    bool found = pick_find(&node->options->whom, &node->found);
    if (node->round == 1) {
        node_groups_open(node);
    }
    if (known != 0) {
        qsort(node->processes, known, sizeof(*node->processes), pid_compare);
    }
    for (size_t i = 0; found && i < node->found.count; i++) {
        process_read(node, known, node->found.pids[i]);
    }
    for (size_t i = 0; i < node->count; i++) {
        if (node->processes[i].seen_round == node->round) {
            node->processes[kept++] = node->processes[i];
        } else {
            process_free(&node->processes[i]);
        }
    }
    node->count = kept;
    node_groups_forget(node);
    if (kept != 0) {
        qsort(node->processes, kept, sizeof(*node->processes), size_compare);
    }
    return found;
}

// ---- looks --------------------------------------------------------------------------------------

static uint64_t left_ns(const struct node *node, uint64_t begun_ns)
{
    uint64_t passed = clock_now_ns() - begun_ns;
    return node->options->budget_ns - min_u64(passed, node->options->budget_ns);
}

// What a child that takes samples and its parent share.
struct sampling {
    const struct node *node;
    size_t next; // the process it is at
    struct {
        bool taken;
        struct sample sample;
    } rows[];
};

static bool matters_here(const struct node *node, size_t index)
{
    return node->processes[index].rss_bytes >= node->options->min_bytes;
}

static void samples_work(void *arg)
{
    static struct facts light; // of one that was not looked at yet: its number is enough
    struct sampling *s = arg;
    for (; s->next < s->node->count; s->next++) {
        const struct node_process *process = &s->node->processes[s->next];
        light.pid = process->pid;
        s->rows[s->next].taken = matters_here(s->node, s->next) &&
                                 doctor_sample(process->facts != NULL ? process->facts : &light,
                                               &s->rows[s->next].sample) == DOCTOR_OK;
    }
}

static void sample_add(struct node_process *process, const struct sample *sample)
{
    if (process->samples == NULL) {
        process->samples = calloc(NODE_SAMPLES, sizeof(*process->samples));
        if (process->samples == NULL) {
            out_of_memory();
        }
    }
    process->samples[process->samples_count++ % NODE_SAMPLES] = *sample;
}

static void samples_take(struct node *node, uint64_t begun_ns)
{
    size_t bytes = sizeof(struct sampling) + node->count * sizeof(((struct sampling *)0)->rows[0]);
    struct sampling *s = child_memory(bytes);
    s->node = node;
    // A process at which the child ends has no sample in this round; where it has hung there, the
    // budget is used up, and those behind have none either.
    while (s->next < node->count && !child_run(samples_work, s, LOOK_SECONDS)) {
        s->rows[s->next++].taken = false;
        if (left_ns(node, begun_ns) == 0) {
            break;
        }
    }
    for (size_t i = 0; i < node->count; i++) {
        if (s->rows[i].taken) {
            sample_add(&node->processes[i], &s->rows[i].sample);
        }
    }
    child_memory_free(s, bytes);
}

// The samples in order of time. The first one, taken before anything was known of the process, may
// lack what the others have: it is left out then.
static size_t samples_in_order(const struct node_process *process, struct sample *out)
{
    size_t count = min_size(process->samples_count, NODE_SAMPLES);
    size_t from = process->samples_count - count;
    for (size_t i = 0; i < count; i++) {
        out[i] = process->samples[(from + i) % NODE_SAMPLES];
    }
    if (count > 1 && out[0].live_bytes == UINT64_MAX && out[1].live_bytes != UINT64_MAX) {
        memmove(out, out + 1, --count * sizeof(*out));
    }
    return count;
}

// Page cache, and shared memory or the kernel's own beyond what the process has mapped.
static bool is_of_cgroup(const struct verdict *v, const struct account *account)
{
    return v->id == VERDICT_PAGECACHE ||
           (v->id == VERDICT_SHMEM && v->bytes > account->bytes[ROW_SHMEM]);
}

static void diagnosis_take(struct node_process *process, const struct diagnosis *d)
{
    const struct facts *facts = process->facts;
    process->verdicts_count = min_size(d->count, NODE_VERDICTS);
    for (size_t i = 0; i < process->verdicts_count; i++) {
        const struct verdict *v = &d->verdicts[i];
        process->verdicts[i] = (struct node_verdict){.id = v->id,
                                                     .confidence = v->confidence,
                                                     .bytes = v->bytes,
                                                     .of_cgroup = is_of_cgroup(v, &d->account)};
    }
    process->finding = d->finding;
    process->refused = !d->finding && facts->sources[SOURCE_MAPS].state == SOURCE_REFUSED;
    process->rss_bytes = facts->process.rss_bytes;
    process->on_ebb = facts->ebb.in_use;
    process->limit_bytes =
        facts->ebb.in_use && facts->ebb.limit_bytes != 0 ? facts->ebb.limit_bytes : UINT64_MAX;
    snprintf(process->sentence, sizeof(process->sentence), "%s", d->verdicts[0].sentence);
    snprintf(process->type, sizeof(process->type), "%s", d->verdicts[0].command);
}

// What a child that looks and its parent share.
struct looking {
    int pid;
    struct doctor_options how;
    enum doctor_error error;
    struct facts facts;
};

static void look_work(void *arg)
{
    struct looking *l = arg;
    l->error = doctor_look(l->pid, &l->how, &l->facts);
}

// Says, once for each process, that a look has ended the child that made it.
static void look_failed(struct node *node, struct node_process *process)
{
    node->failures_count++;
    if (!process->failed_said) {
        cli_warn("node", "a look at process %d (%s) failed: its memory is as no look expects it",
                 process->pid, process->name);
    }
    process->failed_said = true;
    process->finding = process->refused = false;
    process->verdicts[0] =
        (struct node_verdict){.id = VERDICT_UNKNOWN, .confidence = CONFIDENCE_HIGH};
    process->verdicts_count = 1;
    snprintf(process->sentence, sizeof(process->sentence),
             "%s (PID %d) could not be looked at: its memory is as no look expects it.",
             process->name, process->pid);
}

static void process_diagnose(struct node_process *process)
{
    static struct diagnosis diagnosis;
    struct sample samples[NODE_SAMPLES];
    size_t count = samples_in_order(process, samples);
    bool series = count >= NODE_SAMPLES_MIN;
    process->cost_ns = process->facts->cost_ns;
    process->trend = series ? trend_of(samples, count) : (struct trend){0};
    verdicts_of(process->facts, series ? &process->trend : NULL, &diagnosis);
    diagnosis_take(process, &diagnosis);
}

static void process_look(struct node *node, struct node_process *process, uint64_t budget_ns)
{
    struct looking *l = child_memory(sizeof(*l));
    l->pid = process->pid;
    l->how = (struct doctor_options){.budget_ns = budget_ns};
    bool whole = child_run(look_work, l, LOOK_SECONDS);
    process->state = whole && l->error != DOCTOR_OK ? NODE_ENDED : NODE_LOOKED;
    process->looked_round = node->round;
    process->failed = !whole;
    if (!whole) {
        look_failed(node, process);
    } else if (l->error == DOCTOR_OK) {
        if (process->facts == NULL) {
            process->facts = malloc(sizeof(*process->facts));
            if (process->facts == NULL) {
                out_of_memory();
            }
        }
        *process->facts = l->facts;
        process_diagnose(process);
    }
    child_memory_free(l, sizeof(*l));
}

static bool left_something(const struct node_process *process)
{
    for (size_t i = 0; i < SOURCE_COUNT; i++) {
        if (process->facts->sources[i].state == SOURCE_LEFT) {
            return true;
        }
    }
    return false;
}

static void progress(const struct node *node, uint64_t begun_ns, bool *shown)
{
    uint64_t passed = clock_now_ns() - begun_ns;
    if (node->options->listen != NULL || passed < PROGRESS_NS || isatty(STDERR_FILENO) != 1) {
        return;
    }
    fprintf(stderr, "\r\033[Klooked at %llu processes, %.1f of at most %.1f s",
            (unsigned long long)node->looked_count, (double)passed / (double)NS_PER_S,
            (double)node->options->budget_ns / (double)NS_PER_S);
    *shown = true;
}

// Looks at what matters as long as there is time; left_before: only at what was left out the last
// time.
static void looks(struct node *node, bool left_before, uint64_t begun_ns, bool *shown)
{
    for (size_t i = 0; i < node->count; i++) {
        struct node_process *process = &node->processes[i];
        bool done = process->state != NODE_SMALL;
        bool was_left = process->looked_round + 1 < node->round && process->samples_count > 1;
        if (process->rss_bytes < node->options->min_bytes || done || (left_before && !was_left)) {
            continue;
        }
        uint64_t left = left_ns(node, begun_ns);
        if (left < LOOK_NS_MIN) {
            process->state = NODE_LEFT;
            node->left_count++;
            continue;
        }
        process_look(node, process, min_u64(left, DOCTOR_BUDGET_NS));
        node->looked_count += process->state == NODE_LOOKED;
        progress(node, begun_ns, shown);
    }
}

// What all others have left of the budget goes to those of which nothing could be told for lack of
// time.
static void second_looks(struct node *node, uint64_t begun_ns, bool *shown)
{
    for (size_t i = 0; i < node->count; i++) {
        struct node_process *process = &node->processes[i];
        uint64_t left = left_ns(node, begun_ns);
        if (process->state == NODE_LOOKED && node_verdict_of(process) == VERDICT_UNKNOWN &&
            process->facts != NULL && !process->refused && !process->failed &&
            left > DOCTOR_BUDGET_NS && left_something(process)) {
            process_look(node, process, min_u64(left, SECOND_NS));
            progress(node, begun_ns, shown);
        }
    }
}

// What is charged to a cgroup is told of each process in it, and counted once; the first verdicts
// come first, since the table counts these alone.
static void charges_count(struct node *node)
{
    for (size_t i = 0; i < node->groups_count; i++) {
        node->groups[i].counted = 0;
    }
    for (size_t k = 0; k < NODE_VERDICTS; k++) {
        for (size_t i = 0; i < node->count; i++) {
            struct node_process *process = &node->processes[i];
            struct node_verdict *v = &process->verdicts[k];
            if (k >= process->verdicts_count || process->state == NODE_ENDED || !v->of_cgroup) {
                continue;
            }
            unsigned *counted = &node->groups[process->group].counted;
            v->again = (*counted & 1u << v->id) != 0;
            *counted |= 1u << v->id;
        }
    }
}

bool node_round(struct node *node)
{
    bool shown = false;
    uint64_t begun = clock_now_ns();
    node->round++;
    node->looked_count = node->left_count = node->refused_count = 0;
    node->small_count = node->small_bytes = 0;
    bool found = cheap_pass(node);
    for (size_t i = 0; i < node->count; i++) {
        struct node_process *process = &node->processes[i];
        if (process->rss_bytes < node->options->min_bytes) {
            node->small_count++;
            node->small_bytes += process->rss_bytes;
            // What an earlier look said was of another size.
            process->verdicts_count = 0;
            process->finding = process->refused = false;
        }
    }
    samples_take(node, begun);
    node->first_ns = clock_now_ns() - begun;
    looks(node, true, begun, &shown);
    looks(node, false, begun, &shown);
    second_looks(node, begun, &shown);
    for (size_t i = 0; i < node->count; i++) {
        const struct node_process *process = &node->processes[i];
        node->refused_count += process->state == NODE_LOOKED && process->refused;
    }
    charges_count(node);
    if (shown) {
        fputs("\r\033[K", stderr);
    }
    node->look_ns = clock_now_ns() - begun - node->first_ns;
    return found;
}

void node_free(struct node *node)
{
    for (size_t i = 0; i < node->count; i++) {
        process_free(&node->processes[i]);
    }
    free(node->processes);
    free(node->groups);
    found_free(&node->found);
}

// ---- questions ----------------------------------------------------------------------------------

enum verdict_id node_verdict_of(const struct node_process *process)
{
    return process->verdicts_count != 0 ? process->verdicts[0].id : VERDICT_UNKNOWN;
}

const char *node_verdict_name(const struct node_process *process)
{
    if (process->verdicts_count == 0) {
        return process->state == NODE_LEFT ? "left" : "small";
    }
    return verdict_name(process->verdicts[0].id);
}
