// SPDX-License-Identifier: MIT
//
// Claim model: every interleaving of the claim (span/world.c) with malloc and free of the owner
// (the bracket of span/span.h). Commit tier.
//
// Model
//   One owner, two claimers; a free list that is a version number, so that a change made from
//   what the list was before shows. Stores go through a store buffer for each thread, as on x86-64:
//   first in, first out, seen by others at any later time, emptied by locked instructions and by
//   membarrier. Weaker orders (arm64) are not modelled.
//
// Go       none
#include "walk.h"

enum { BUSY, CLAIMED, TAG, LIST, WORDS }; // shared words; LIST is the version of a free list
enum { TAG_ID = 1, TAG_OF_CLAIM = 2 };
enum { OWNER, CLAIMER_1, CLAIMER_2, CLAIM_THREADS };
#define BUFFER_COUNT 6
#define OWNER_OPS 3

enum {
    CLAIM_SOUND,
    CLAIM_NO_BARRIER,
    CLAIM_NO_WAIT,
    CLAIM_NO_TAG,
    CLAIM_READ_FIRST,
    CLAIM_NO_LOOK,
    CLAIM_END_FIRST,
};
static const char *const claim_weaknesses[] = {
    "as it is",
    "without the barrier",
    "without waiting for busy",
    "without changing the tag",
    "malloc reads the free list before it looks at claimed",
    "the slow path does not look at claimed",
    "the claim ends before its work does",
    NULL,
};
static const char *const claim_thread_names[] = {"owner", "claimer 1", "claimer 2"};

struct claim_state {
    uint8_t memory[WORDS];
    uint8_t place[CLAIM_THREADS];
    uint8_t read[CLAIM_THREADS];                 // the version of the list that the thread has read
    uint8_t buffer[CLAIM_THREADS][BUFFER_COUNT]; // word << 4 | value, oldest first
    uint8_t buffered[CLAIM_THREADS];
    uint8_t world;   // who holds the lock, plus one
    uint8_t version; // of the list in truth: each change must start from the last one
    uint8_t owner_in;
    uint8_t claimer_in;
    uint8_t ops;
};
_Static_assert(sizeof(struct claim_state) <= STATE_MAX, "a state has a fixed size");

static void claim_drain_one(struct claim_state *s, unsigned t)
{
    uint8_t entry = s->buffer[t][0];
    s->memory[entry >> 4] = entry & 15;
    s->buffered[t]--;
    memmove(s->buffer[t], s->buffer[t] + 1, s->buffered[t]);
    s->buffer[t][s->buffered[t]] = 0;
}

static void claim_drain(struct claim_state *s, unsigned t)
{
    while (s->buffered[t] != 0) {
        claim_drain_one(s, t);
    }
}

static void claim_store(struct claim_state *s, unsigned t, unsigned word, unsigned value)
{
    if (s->buffered[t] == BUFFER_COUNT) {
        claim_drain_one(s, t);
    }
    s->buffer[t][s->buffered[t]++] = (uint8_t)(word << 4 | value);
}

static unsigned claim_load(const struct claim_state *s, unsigned t, unsigned word)
{
    for (unsigned i = s->buffered[t]; i-- > 0;) {
        if (s->buffer[t][i] >> 4 == (int)word) {
            return s->buffer[t][i] & 15;
        }
    }
    return s->memory[word];
}

// What malloc, free and a flush do to the list: a new version, made from the one that was read.
static void claim_change(struct claim_state *s, unsigned t)
{
    wrong_if(s->read[t] != s->version, "a change was made from what the list was before");
    s->version = (uint8_t)(s->read[t] + 1);
    claim_store(s, t, LIST, s->version);
}

static const char *claim_lock(struct claim_state *s, unsigned t)
{
    if (s->world != 0) {
        return NULL;
    }
    claim_drain(s, t);
    s->world = (uint8_t)(t + 1);
    s->place[t]++;
    return "takes WORLD";
}

static const char *claim_unlock(struct claim_state *s, unsigned t)
{
    claim_drain(s, t);
    s->world = 0;
    s->place[t]++;
    return "leaves WORLD";
}

// Places of the owner. malloc looks at claimed, free at the tag; both go to SLOW if it is not
// theirs.
enum {
    AT_START,
    AT_MALLOC,
    AT_MALLOC_READ,
    AT_FREE,
    AT_FREE_READ,
    AT_CHANGE,
    AT_LEAVE,
    AT_SLOW,
    AT_WAIT,
    AT_WAITED,
    AT_ENTER_AGAIN,
    AT_LOOK_AGAIN,
    AT_READ_AGAIN,
};

static const char *owner_read(struct claim_state *s, unsigned next)
{
    s->read[OWNER] = (uint8_t)claim_load(s, OWNER, LIST);
    s->place[OWNER] = (uint8_t)next;
    return "reads the list";
}

static const char *owner_look(struct claim_state *s, bool mine, unsigned next, const char *what)
{
    s->place[OWNER] = (uint8_t)(mine ? next : AT_SLOW);
    if (mine) {
        s->owner_in = 1;
        wrong_if(s->claimer_in != 0, "owner and claimer are both inside");
    }
    return what;
}

static const char *owner_enter(struct claim_state *s, unsigned next)
{
    claim_store(s, OWNER, BUSY, 1);
    s->place[OWNER] = (uint8_t)next;
    return "busy = 1";
}

static const char *owner_leave(struct claim_state *s, unsigned next)
{
    s->owner_in = 0;
    claim_store(s, OWNER, BUSY, 0);
    s->place[OWNER] = (uint8_t)next;
    return "busy = 0";
}

// Action 0 is malloc where there is a choice, 1 is free.
static const char *owner_step(struct claim_state *s, unsigned action)
{
    bool read_first = weakness == CLAIM_READ_FIRST;
    switch (s->place[OWNER]) {
    case AT_START:
        if (s->ops == OWNER_OPS) {
            return NULL;
        }
        return owner_enter(s, action == 1 ? AT_FREE : read_first ? AT_MALLOC_READ : AT_MALLOC);
    case AT_MALLOC:
        return owner_look(s, claim_load(s, OWNER, CLAIMED) == 0,
                          read_first ? AT_CHANGE : AT_MALLOC_READ, "looks at claimed");
    case AT_MALLOC_READ:
        return owner_read(s, read_first ? AT_MALLOC : AT_CHANGE);
    case AT_FREE:
        return owner_look(s, claim_load(s, OWNER, TAG) == TAG_ID, AT_FREE_READ, "looks at the tag");
    case AT_FREE_READ:
    case AT_READ_AGAIN:
        return owner_read(s, AT_CHANGE);
    case AT_CHANGE:
        claim_change(s, OWNER);
        s->place[OWNER] = AT_LEAVE;
        return "changes the list";
    case AT_LEAVE:
        s->ops++;
        return owner_leave(s, AT_START);
    case AT_SLOW:
        return owner_leave(s, weakness == CLAIM_NO_LOOK ? AT_ENTER_AGAIN : AT_WAIT);
    case AT_WAIT:
        return claim_lock(s, OWNER);
    case AT_WAITED:
        return claim_unlock(s, OWNER);
    case AT_ENTER_AGAIN:
        return owner_enter(s, AT_LOOK_AGAIN);
    case AT_LOOK_AGAIN:
        return owner_look(s, claim_load(s, OWNER, CLAIMED) == 0 || weakness == CLAIM_NO_LOOK,
                          AT_READ_AGAIN, "looks at claimed again");
    default:
        return NULL;
    }
}

// Places of a claimer, in order.
enum {
    AT_CLAIM,
    AT_SET_CLAIMED,
    AT_SET_TAG,
    AT_BARRIER,
    AT_BUSY,
    AT_WORK_READ,
    AT_WORK,
    AT_RESET_TAG,
    AT_RESET_CLAIMED,
    AT_UNCLAIM,
    AT_LATE_READ,
    AT_LATE_WORK,
};

// Action 1 at AT_BUSY: it waits no longer and goes without having done anything.
static const char *claimer_wait(struct claim_state *s, unsigned t, unsigned action)
{
    if (weakness != CLAIM_NO_WAIT && claim_load(s, t, BUSY) != 0) {
        if (action == 0) {
            return NULL;
        }
        s->place[t] = AT_RESET_TAG;
        return "gives up";
    }
    if (action != 0) {
        return NULL;
    }
    s->place[t] = weakness == CLAIM_END_FIRST ? AT_RESET_TAG : AT_WORK_READ;
    if (weakness != CLAIM_END_FIRST) {
        s->claimer_in = 1;
        wrong_if(s->owner_in != 0, "owner and claimer are both inside");
    }
    return "sees busy = 0";
}

static const char *claimer_step(struct claim_state *s, unsigned t, unsigned action)
{
    if (s->place[t] == AT_BUSY) {
        return claimer_wait(s, t, action);
    }
    if (action != 0) {
        return NULL;
    }
    switch (s->place[t]) {
    case AT_CLAIM:
        return claim_lock(s, t);
    case AT_SET_CLAIMED:
        claim_drain(s, t); // a sequential store
        s->memory[CLAIMED] = 1;
        s->place[t]++;
        return "claimed = 1";
    case AT_SET_TAG:
        if (weakness != CLAIM_NO_TAG) {
            claim_store(s, t, TAG, TAG_OF_CLAIM);
        }
        s->place[t]++;
        return "tag = CLAIMED";
    case AT_BARRIER:
        for (unsigned i = 0; i < CLAIM_THREADS && weakness != CLAIM_NO_BARRIER; i++) {
            claim_drain(s, i);
        }
        s->place[t]++;
        return "barrier";
    case AT_WORK_READ:
    case AT_LATE_READ:
        s->read[t] = (uint8_t)claim_load(s, t, LIST);
        s->place[t]++;
        return "reads the list";
    case AT_WORK:
    case AT_LATE_WORK:
        claim_change(s, t);
        s->place[t]++;
        return "changes the list";
    case AT_RESET_TAG:
        s->claimer_in = 0;
        claim_store(s, t, TAG, TAG_ID);
        s->place[t]++;
        return "tag = id";
    case AT_RESET_CLAIMED:
        claim_store(s, t, CLAIMED, 0);
        s->place[t] = weakness == CLAIM_END_FIRST ? AT_LATE_READ : AT_UNCLAIM;
        return "claimed = 0";
    case AT_UNCLAIM:
        claim_unlock(s, t);
        s->place[t] = UINT8_MAX;
        return "leaves WORLD";
    default:
        if (s->place[t] == AT_LATE_WORK + 1) {
            s->place[t] = AT_UNCLAIM;
            return "is done";
        }
        return NULL;
    }
}

static const char *claim_step(unsigned char *state, unsigned thread, unsigned action)
{
    struct claim_state *s = (struct claim_state *)(void *)state;
    if (action == 2) {
        if (s->buffered[thread] == 0) {
            return NULL;
        }
        claim_drain_one(s, thread);
        return "(a store leaves the buffer)";
    }
    if (thread != OWNER) {
        return claimer_step(s, thread, action);
    }
    return action == 0 || s->place[OWNER] == AT_START ? owner_step(s, action) : NULL;
}

static void claim_start(unsigned char *state)
{
    struct claim_state *s = (struct claim_state *)(void *)state;
    s->memory[TAG] = TAG_ID;
}

static void claim_end(const unsigned char *state)
{
    const struct claim_state *s = (const struct claim_state *)(const void *)state;
    wrong_if(s->ops != OWNER_OPS, "the owner hangs");
    wrong_if(s->place[CLAIMER_1] != UINT8_MAX || s->place[CLAIMER_2] != UINT8_MAX,
             "a claimer hangs");
    wrong_if(s->memory[BUSY] != 0 || s->memory[CLAIMED] != 0 || s->memory[TAG] != TAG_ID ||
                 s->memory[LIST] != s->version,
             "the cache is not left as it was");
}

static const struct model claim_model = {
    .name = "claim",
    .weaknesses = claim_weaknesses,
    .thread_names = claim_thread_names,
    .state_bytes = sizeof(struct claim_state),
    .thread_count = CLAIM_THREADS,
    .action_count = 3,
    .start = claim_start,
    .step = claim_step,
    .end = claim_end,
};

int main(void)
{
    return walk_main(&claim_model);
}
