// SPDX-License-Identifier: MIT
//
// Walk: every interleaving of a protocol, on a model of it. The model programs include this once.
//
// Model
//   A protocol is a state (plain bytes) and a step function for each thread: from the thread's
//   place, one access to shared memory. explore() walks depth first through all orders of steps and
//   remembers the states it has seen, by a hash of 64 bits. A step that breaks an invariant ends
//   the walk with the reason. Each protocol is also run with one part left out: such a case must
//   fail. It shows that the part is needed, and that the model would see it missing.
//
// Why this way
//   The race programs meet a window of one instruction once in hours; here there are only steps.
//
// Go       none
#ifndef EBB_TEST_RACE_WALK_H
#define EBB_TEST_RACE_WALK_H

#include <string.h>

#include "race.h"

#define STATE_MAX 128

struct model {
    const char *name;
    const char *const *weaknesses; // [0]: the protocol as it is; NULL ends the list
    const char *const *thread_names;
    size_t state_bytes;
    unsigned thread_count;
    unsigned action_count;
    void (*start)(unsigned char *state);
    // step does what the thread does next and says what; NULL: it cannot, or has ended. Action 0 is
    // the next step of its program, others are what may happen instead or besides.
    const char *(*step)(unsigned char *state, unsigned thread, unsigned action);
    void (*end)(const unsigned char *state); // nothing can move any more
};

static unsigned weakness; // which part is left out
static const char *found; // what went wrong, in the case that is running

static void wrong_if(bool wrong, const char *what)
{
    if (wrong && found == NULL) {
        found = what;
    }
}

#define SEEN_COUNT ((size_t)1 << 22)
#define DEPTH_MAX 400

static uint64_t *seen; // open addressing; 0: empty
static size_t seen_count;
static const struct model *model;
static struct {
    const char *what;
    unsigned thread;
} path[DEPTH_MAX];
static unsigned path_length;

// True if the state has not been seen before.
static bool seen_add(const unsigned char *state)
{
    uint64_t hash = UINT64_C(0x243f6a8885a308d3);
    for (size_t i = 0; i < model->state_bytes; i++) {
        hash = (hash ^ state[i]) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    hash |= 1;
    size_t place = (hash >> 13) % SEEN_COUNT;
    while (seen[place] != 0) {
        if (seen[place] == hash) {
            return false;
        }
        place = (place + 1) % SEEN_COUNT;
    }
    seen[place] = hash;
    seen_count++;
    FRAME_CHECK(seen_count < SEEN_COUNT / 4 * 3);
    return true;
}

// Each action of each thread: action 0 is the next step, the others are what may happen instead or
// besides (a store leaving the buffer, a choice).
static void explore(const unsigned char *state)
{
    if (!seen_add(state)) {
        return;
    }
    bool moved = false;
    for (unsigned thread = 0; thread < model->thread_count; thread++) {
        for (unsigned action = 0; action < model->action_count; action++) {
            unsigned char next[STATE_MAX];
            memcpy(next, state, model->state_bytes);
            const char *what = model->step(next, thread, action);
            if (what == NULL) {
                continue; // not possible here
            }
            moved = true;
            FRAME_CHECK(path_length < DEPTH_MAX);
            path[path_length].thread = thread;
            path[path_length].what = what;
            path_length++;
            if (found == NULL) {
                explore(next);
            }
            if (found != NULL) {
                return; // the path stays, to be printed
            }
            path_length--;
        }
    }
    if (!moved) {
        model->end(state);
    }
}

static void path_print(void)
{
    for (unsigned i = 0; i < path_length; i++) {
        fprintf(stderr, "    %s: %s\n", model->thread_names[path[i].thread], path[i].what);
    }
}

// Runs one case. Returns true if it came out as it should.
static bool run_case(const struct model *m, unsigned weak)
{
    unsigned char state[STATE_MAX] = {0};
    model = m;
    weakness = weak;
    found = NULL;
    path_length = 0;
    seen_count = 0;
    memset(seen, 0, SEEN_COUNT * sizeof(*seen));
    m->start(state);
    explore(state);
    bool good = (found != NULL) == (weak != 0);
    fprintf(stderr, "%s: %s, %s: %zu states: %s\n", good ? "ok" : "FAILED", m->name,
            m->weaknesses[weak], seen_count, found == NULL ? "holds" : found);
    if (!good) {
        path_print();
    }
    return good;
}

// walk_main runs the model as it is and with each part left out. Returns the program's status.
static int walk_main(const struct model *m)
{
    bool good = true;
    seen = malloc(SEEN_COUNT * sizeof(*seen));
    FRAME_CHECK(seen != NULL);
    for (unsigned weak = 0; m->weaknesses[weak] != NULL; weak++) {
        good &= run_case(m, weak);
    }
    free(seen);
    return good ? 0 : 1;
}

#endif
