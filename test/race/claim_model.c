// SPDX-License-Identifier: MIT
//
// Claim model: every interleaving of the two protocols without locks, on a model of each: the claim
// (span/world.c, the bracket of span/span.h) and the remote frees with their notifications
// (span/remote.c, span/central.c). claim_model [NAME]: all cases, or those whose name begins so.
// Commit tier.
//
// Model
//   A protocol is a state (plain bytes) and a step function for each thread: from the thread's place,
//   one access to shared memory. explore() walks depth first through all orders of steps and
//   remembers the states it has seen. A step that breaks an invariant ends the walk with the reason.
//   Stores of the claim protocol go through a store buffer for each thread, as on x86-64: first in,
//   first out, seen by others at any later time, emptied by locked instructions and by membarrier.
//   Weaker orders (arm64) are not modelled.
//   Each protocol is also run with one part left out. Such a case must fail: it shows that the part
//   is needed, and that the model would see it missing.
//
// Why this way
//   The race programs meet a window of one instruction once in hours; here there are only steps.
//
// Go       none
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
    // step does what the thread does next and says what; NULL: it cannot, or has ended. Action 0 is the
    // next step of its program, others are what may happen instead or besides.
    const char *(*step)(unsigned char *state, unsigned thread, unsigned action);
    void (*end)(const unsigned char *state); // nothing can move any more
};

static unsigned weakness;  // which part is left out
static const char *found;  // what went wrong, in the case that is running

static void wrong_if(bool wrong, const char *what)
{
    if (wrong && found == NULL) {
        found = what;
    }
}

// --- the claim ---

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
    uint8_t read[CLAIM_THREADS]; // the version of the list that the thread has read
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

// Places of the owner. malloc looks at claimed, free at the tag; both go to SLOW if it is not theirs.
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
        return owner_look(s, claim_load(s, OWNER, TAG) == TAG_ID, AT_FREE_READ,
                          "looks at the tag");
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

// --- remote frees ---

// Two spans of one class, two caches, central. The exiter owns the spans, fills them, and ends; the
// pushers free blocks into them; the adopter takes the exiter's cache over, or one of its own, and
// adopts what central has, or makes and deletes spans on records that have become free.
enum { EXITER, PUSHER_1, PUSHER_2, ADOPTER, REMOTE_THREADS };
#define SPANS 2
#define CACHES 2
#define ADOPTER_ROUNDS 2

enum {
    REMOTE_SOUND,
    REMOTE_NO_DEAD,
    REMOTE_NO_LAST_DRAIN,
    REMOTE_NO_PASS,
    REMOTE_NO_COLLECT,
    REMOTE_MARK_BLIND,
    REMOTE_CLEAR_BLIND,
    REMOTE_LATE_OWNER,
    REMOTE_NO_LIST_TAG,
};
static const char *const remote_weaknesses[] = {
    "as it is",
    "a notifier does not ask whether the cache is dead",
    "a cache is not drained after it is dead",
    "a drain does not pass on what belongs to others",
    "nobody collects what is freed into spans of central",
    "a span is marked full whatever its remote word says",
    "an owner takes a span back from a notifier",
    "the owner of a span given to central is stored late",
    "central's spans are known by owner and state and not by their tag",
    NULL,
};
static const char *const remote_thread_names[] = {"exiter", "pusher 1", "pusher 2", "adopter"};

enum { MODEL_NONE, MODEL_PARTIAL, MODEL_FULL };
enum { LIST_CENTRAL = 1, LIST_PARTIAL = 2, LIST_FULL = 8 }; // of cache c: shifted by c

struct span_model {
    uint8_t alive; // the record is a span's
    uint8_t owner; // cache plus one; 0: central, or nobody's
    uint8_t state;
    uint8_t tag;    // it is on central's list
    uint8_t remote; // count in the remote word
    uint8_t full;   // flag in the remote word
    uint8_t used;
    uint8_t lists;  // a bit for each list it is on
    uint8_t flight; // a notification is under way
};

struct thread_model {
    uint8_t place;
    uint8_t after_notify; // places to go on at
    uint8_t after_drain;
    uint8_t after_delete;
    uint8_t span;     // the one it is at
    uint8_t cache;    // the one it has, or has read
    uint8_t todo;     // spans to notify of, a bit each
    uint8_t draining; // spans taken from its pending stack
    uint8_t gone;     // span is to be deleted
    uint8_t rounds;
    uint8_t held[SPANS]; // blocks in use that it will free
};

struct remote_state {
    struct span_model span[SPANS];
    struct thread_model thread[REMOTE_THREADS];
    uint8_t pending[CACHES];
    uint8_t dead[CACHES];
    uint8_t lock;  // CENTRAL: who holds it, plus one
    uint8_t late;  // a store of owner = NULL that is not seen yet: span plus one
    uint8_t mine;  // the adopter's cache
};
_Static_assert(sizeof(struct remote_state) <= STATE_MAX, "a state has a fixed size");

enum {
    ENDED,
    PUSH,
    PUSH_OWNER,
    COLLECT_LOCK,
    COLLECT_TAG,
    COLLECT_OWNER,
    COLLECT_STATE,
    COLLECT_OWNER_AGAIN,
    COLLECT_CLASS,
    COLLECT_UNLOCK,
    NOTIFY,
    NOTIFY_STACK,
    NOTIFY_DEAD,
    NOTIFY_TAKE,
    NOTIFY_LOCK,
    NOTIFY_CENTRAL,
    NOTIFY_UNLOCK,
    NOTIFY_NEXT,
    DELETE_STATE,
    DELETE_WIPE,
    DRAIN,
    DRAIN_ONE,
    DRAIN_NEXT,
    FILL,
    FILL_MARK,
    FILL_NEXT,
    OWN_FREE,
    OWN_CLEAR,
    PUT,
    PUT_OWNER,
    PUT_SETTLE,
    PUT_UNLOCK,
    RETIRE,
    ADOPT_CACHE,
    ADOPT_DRAIN,
    ADOPT_LOCK,
    ADOPT,
    ADOPT_FILLED,
    MAKE,
    MAKE_OWNER,
    MAKE_STATE,
    UNMAKE,
    ADOPT_ROUND,
};

static void list_add(struct span_model *span, unsigned list)
{
    wrong_if(span->lists != 0, "a span is on two lists");
    span->lists |= (uint8_t)list;
}

static void list_take(struct span_model *span, unsigned list)
{
    wrong_if(span->lists != list, "a span is taken from a list that it is not on");
    span->lists &= (uint8_t)~list;
}

static void late_owner(struct remote_state *s)
{
    if (s->late != 0) {
        s->span[s->late - 1].owner = 0;
        s->late = 0;
    }
}

static void collect(struct span_model *span)
{
    wrong_if(span->full != 0, "the flag of a full span is lost");
    wrong_if(span->remote > span->used, "a block is freed twice");
    span->used = (uint8_t)(span->used - span->remote);
    span->remote = 0;
}

static const char *central_lock(struct remote_state *s, unsigned t, unsigned next)
{
    if (s->lock != 0) {
        return NULL;
    }
    s->lock = (uint8_t)(t + 1);
    s->thread[t].place = (uint8_t)next;
    return "takes CENTRAL";
}

static const char *central_unlock(struct remote_state *s, unsigned t, unsigned next)
{
    struct thread_model *m = &s->thread[t];
    if (t == EXITER) {
        late_owner(s);
    }
    s->lock = 0;
    m->place = m->gone ? DELETE_STATE : (uint8_t)next;
    m->after_delete = m->gone ? (uint8_t)next : 0;
    m->gone = 0;
    return "leaves CENTRAL";
}

// settle_locked of central.c.
static void settle(struct thread_model *m, struct span_model *span, bool linked)
{
    if (span->remote != 0) {
        collect(span);
    }
    wrong_if(linked && span->lists != LIST_CENTRAL, "a record that is not central's is settled");
    if (span->used == 0) {
        if (linked) {
            list_take(span, LIST_CENTRAL);
        }
        span->tag = 0;
        span->state = MODEL_NONE;
        m->gone = 1;
    } else if (!linked) {
        list_add(span, LIST_CENTRAL);
        span->tag = 1;
    }
}

// cache_full_to_partial of cache.c.
static void full_to_partial(struct thread_model *m, struct span_model *span, unsigned cache)
{
    wrong_if(span->state != MODEL_FULL, "told of a span that is not full");
    collect(span);
    list_take(span, LIST_FULL << cache);
    span->state = MODEL_PARTIAL;
    span->flight = 0;
    if (span->used == 0) {
        m->gone = 1;
    } else {
        list_add(span, LIST_PARTIAL << cache);
    }
}

static unsigned lowest(unsigned bits)
{
    return (unsigned)__builtin_ctz(bits);
}

static void go_delete(struct thread_model *m, unsigned next)
{
    m->place = m->gone ? DELETE_STATE : (uint8_t)next;
    m->after_delete = m->gone ? (uint8_t)next : 0;
    m->gone = 0;
}

static void go_notify(struct remote_state *s, unsigned t, unsigned next)
{
    s->thread[t].place = NOTIFY;
    s->thread[t].after_notify = (uint8_t)next;
}

static const char *push_step(struct remote_state *s, unsigned t)
{
    struct thread_model *m = &s->thread[t];
    struct span_model *span = &s->span[m->span];
    switch (m->place) {
    case PUSH:
        m->span = m->held[0] != 0 ? 0 : 1;
        span = &s->span[m->span];
        if (m->held[m->span] == 0) {
            m->place = ENDED;
            m->span = 0;
            return "ends";
        }
        m->held[m->span]--;
        span->remote++;
        if (span->full != 0) {
            wrong_if(span->flight != 0, "two notifications of one span are under way");
            span->full = 0;
            span->flight = 1;
            go_notify(s, t, PUSH);
            return "pushes, and is the notifier";
        }
        m->place = PUSH_OWNER;
        return "pushes";
    case PUSH_OWNER:
        m->place = span->owner == 0 && weakness != REMOTE_NO_COLLECT ? COLLECT_LOCK : PUSH;
        return "looks at the owner";
    case COLLECT_LOCK:
        return central_lock(s, t,
                            weakness == REMOTE_NO_LIST_TAG ? COLLECT_OWNER : COLLECT_TAG);
    case COLLECT_TAG:
        if (span->tag != 0) {
            settle(m, span, true);
        }
        m->place = COLLECT_UNLOCK;
        return "looks at the tag and settles";
    case COLLECT_OWNER:
    case COLLECT_OWNER_AGAIN:
        m->place = span->owner == 0 ? m->place + 1 : COLLECT_UNLOCK;
        return "looks at the owner";
    case COLLECT_STATE:
        m->place = span->state == MODEL_PARTIAL ? COLLECT_OWNER_AGAIN : COLLECT_UNLOCK;
        return "looks at the state";
    case COLLECT_CLASS:
        if (span->alive != 0) { // all spans here are of one class
            settle(m, span, true);
        }
        m->place = COLLECT_UNLOCK;
        return "looks at the class and settles";
    default:
        return central_unlock(s, t, PUSH);
    }
}

static const char *notify_step(struct remote_state *s, unsigned t)
{
    struct thread_model *m = &s->thread[t];
    struct span_model *span = &s->span[m->span];
    switch (m->place) {
    case NOTIFY:
        m->cache = span->owner;
        m->place = span->owner == 0 ? NOTIFY_LOCK : NOTIFY_STACK;
        return "looks whom to notify";
    case NOTIFY_STACK:
        wrong_if((s->pending[m->cache - 1] >> m->span & 1) != 0, "a span is pending twice");
        s->pending[m->cache - 1] |= (uint8_t)(1 << m->span);
        m->place = weakness == REMOTE_NO_DEAD ? NOTIFY_NEXT : NOTIFY_DEAD;
        return "pushes the span on the pending stack";
    case NOTIFY_DEAD:
        m->place = s->dead[m->cache - 1] != 0 ? NOTIFY_TAKE : NOTIFY_NEXT;
        return "looks whether the cache is dead";
    case NOTIFY_TAKE:
        m->todo |= s->pending[m->cache - 1];
        s->pending[m->cache - 1] = 0;
        m->place = NOTIFY_NEXT;
        return "takes the pending stack of a dead cache";
    case NOTIFY_LOCK:
        return central_lock(s, t, NOTIFY_CENTRAL);
    case NOTIFY_CENTRAL:
        wrong_if(span->state != MODEL_FULL, "central is told of a span that is not full");
        span->state = MODEL_PARTIAL;
        span->flight = 0;
        settle(m, span, false);
        m->place = NOTIFY_UNLOCK;
        return "settles a full span of central";
    default:
        return central_unlock(s, t, NOTIFY_NEXT);
    }
}

static const char *drain_step(struct remote_state *s, unsigned t, unsigned cache)
{
    struct thread_model *m = &s->thread[t];
    struct span_model *span = &s->span[m->span];
    if (m->place == DRAIN) {
        m->draining = s->pending[cache];
        s->pending[cache] = 0;
        m->place = DRAIN_NEXT;
        return "takes its pending stack";
    }
    if (span->owner == cache + 1) {
        full_to_partial(m, span, cache);
        go_delete(m, DRAIN_NEXT);
        return "takes a full span back";
    }
    if (weakness == REMOTE_NO_PASS) {
        m->place = DRAIN_NEXT;
    } else {
        go_notify(s, t, DRAIN_NEXT);
    }
    return "passes a notification on";
}

static const char *delete_step(struct remote_state *s, unsigned t)
{
    struct thread_model *m = &s->thread[t];
    struct span_model *span = &s->span[m->span];
    if (m->place == DELETE_STATE) {
        span->state = MODEL_NONE;
        m->place = DELETE_WIPE;
        return "deletes a span: its state";
    }
    wrong_if(span->used != 0 || span->remote != 0, "a span is deleted with blocks in use");
    wrong_if(span->lists != 0, "a span is deleted that is on a list");
    wrong_if(span->alive == 0, "a span is deleted twice");
    memset(span, 0, sizeof(*span));
    m->place = m->after_delete;
    return "deletes a span: its record";
}

// refill of cache.c: looks for free blocks, or files the span as full.
static const char *fill_step(struct remote_state *s, unsigned t, unsigned cache, unsigned next)
{
    struct thread_model *m = &s->thread[t];
    struct span_model *span = &s->span[m->span];
    if (m->place == FILL) {
        m->place = span->remote != 0 ? (uint8_t)next : FILL_MARK;
        collect(span);
        return "collects";
    }
    if (weakness == REMOTE_MARK_BLIND) {
        span->remote = 0;
    } else if (span->remote != 0) {
        m->place = FILL;
        return "cannot mark the span full";
    }
    span->full = 1;
    span->state = MODEL_FULL;
    list_take(span, LIST_PARTIAL << cache);
    list_add(span, LIST_FULL << cache);
    m->place = (uint8_t)next;
    return "marks the span full";
}

// The first span on a list of cache 0; SPANS if there is none.
static unsigned first_owned(const struct remote_state *s)
{
    unsigned i = 0;
    while (i < SPANS && (s->span[i].lists & (LIST_PARTIAL | LIST_FULL)) == 0) {
        i++;
    }
    return i;
}

static const char *put_step(struct remote_state *s)
{
    struct thread_model *m = &s->thread[EXITER];
    struct span_model *span = &s->span[m->span];
    switch (m->place) {
    case PUT:
        if (first_owned(s) == SPANS) {
            m->place = RETIRE;
            m->span = 0;
            return "has put all";
        }
        m->span = (uint8_t)first_owned(s);
        span = &s->span[m->span];
        if (central_lock(s, EXITER, PUT_OWNER) == NULL) {
            return NULL;
        }
        list_take(span, span->state == MODEL_FULL ? LIST_FULL : LIST_PARTIAL);
        return "takes CENTRAL to put a span there";
    case PUT_OWNER:
        s->late = (uint8_t)(m->span + 1);
        if (weakness != REMOTE_LATE_OWNER) {
            late_owner(s);
        }
        m->place = PUT_SETTLE;
        return "owner = NULL";
    case PUT_SETTLE:
        if (span->remote != 0 && span->state != MODEL_FULL) {
            late_owner(s); // the swap that collects empties the buffer
        }
        if (span->state != MODEL_FULL) {
            settle(m, span, false);
        }
        m->place = PUT_UNLOCK;
        return "settles";
    default:
        return central_unlock(s, EXITER, PUT);
    }
}

static const char *exiter_step(struct remote_state *s)
{
    struct thread_model *m = &s->thread[EXITER];
    struct span_model *span = &s->span[m->span];
    switch (m->place) {
    case FILL:
    case FILL_MARK:
        return fill_step(s, EXITER, 0, FILL_NEXT);
    case FILL_NEXT:
        m->place = m->span + 1 < SPANS ? FILL : OWN_FREE;
        m->span = (uint8_t)((m->span + 1) % SPANS);
        return "goes on";
    case OWN_FREE:
        m->held[0]--;
        span->used--;
        m->place = span->state == MODEL_FULL ? OWN_CLEAR : DRAIN;
        m->after_drain = PUT;
        return "frees a block of its own span";
    case OWN_CLEAR:
        m->place = DRAIN;
        if ((span->full != 0 && span->remote == 0) || weakness == REMOTE_CLEAR_BLIND) {
            span->full = 0;
            full_to_partial(m, span, 0);
            go_delete(m, DRAIN);
        }
        return "clears the flag, if it is still there";
    case RETIRE:
        s->dead[0] = 1;
        m->place = weakness == REMOTE_NO_LAST_DRAIN ? ENDED : DRAIN;
        m->after_drain = ENDED;
        return "is dead";
    default:
        return put_step(s);
    }
}

static unsigned central_first(const struct remote_state *s)
{
    unsigned i = 0;
    while (i < SPANS && (s->span[i].lists & LIST_CENTRAL) == 0) {
        i++;
    }
    return i;
}

static const char *make_step(struct remote_state *s)
{
    struct thread_model *m = &s->thread[ADOPTER];
    struct span_model *span = &s->span[m->span];
    switch (m->place) {
    case MAKE:
        m->span = s->span[0].alive == 0 ? 0 : 1;
        m->place = ADOPT_ROUND;
        if (s->span[m->span].alive == 0) {
            s->span[m->span].alive = 1;
            m->place = MAKE_OWNER;
        }
        return "makes a span, if there is a record: its class";
    case MAKE_OWNER:
        span->owner = (uint8_t)(s->mine + 1);
        m->place = MAKE_STATE;
        return "makes a span: its owner";
    case MAKE_STATE:
        span->state = MODEL_PARTIAL;
        list_add(span, LIST_PARTIAL << s->mine);
        m->place = UNMAKE;
        return "makes a span: its state";
    default:
        list_take(span, LIST_PARTIAL << s->mine);
        m->gone = 1;
        go_delete(m, ADOPT_ROUND);
        return "unlinks a span";
    }
}

static const char *adopter_step(struct remote_state *s)
{
    struct thread_model *m = &s->thread[ADOPTER];
    unsigned first = central_first(s);
    switch (m->place) {
    case ADOPT_CACHE:
        s->mine = s->dead[0] != 0 && s->thread[EXITER].place == ENDED ? 0 : 1;
        s->dead[s->mine] = 0;
        m->place = ADOPT_DRAIN;
        return "takes a cache";
    case ADOPT_DRAIN:
        m->place = DRAIN;
        m->after_drain = ADOPT_LOCK;
        return "looks at its pending stack";
    case ADOPT_LOCK:
        if (first == SPANS) {
            m->place = MAKE;
            return "sees nothing in central";
        }
        return central_lock(s, ADOPTER, ADOPT);
    case ADOPT:
        m->place = MAKE;
        if (first != SPANS) {
            m->span = (uint8_t)first;
            list_take(&s->span[first], LIST_CENTRAL);
            s->span[first].owner = (uint8_t)(s->mine + 1);
            s->span[first].tag = 0;
            list_add(&s->span[first], LIST_PARTIAL << s->mine);
            m->place = FILL;
        }
        s->lock = 0;
        return "adopts a span";
    case FILL:
    case FILL_MARK:
        return fill_step(s, ADOPTER, s->mine, ADOPT_ROUND);
    case ADOPT_ROUND:
        m->rounds++;
        m->place = m->rounds < ADOPTER_ROUNDS ? ADOPT_DRAIN : ENDED;
        m->span = 0;
        return "ends a round";
    default:
        return make_step(s);
    }
}

// Places where nothing happens but the choice of the next.
static void pass(struct thread_model *m)
{
    while (m->place == NOTIFY_NEXT || m->place == DRAIN_NEXT) {
        uint8_t *left = m->place == NOTIFY_NEXT ? &m->todo : &m->draining;
        uint8_t one = m->place == NOTIFY_NEXT ? NOTIFY : DRAIN_ONE;
        m->cache = 0;
        if (*left != 0) {
            m->span = (uint8_t)lowest(*left);
            *left &= (uint8_t)(*left - 1);
            m->place = one;
        } else {
            m->place = m->place == NOTIFY_NEXT ? m->after_notify : m->after_drain;
        }
    }
}

static const char *remote_step(unsigned char *state, unsigned t, unsigned action)
{
    struct remote_state *s = (struct remote_state *)(void *)state;
    struct thread_model *m = &s->thread[t];
    if (action == 1) {
        if (t != EXITER || s->late == 0) {
            return NULL;
        }
        late_owner(s);
        return "(a store leaves the buffer)";
    }
    const char *what = NULL;
    if (m->place == ENDED) {
        return NULL;
    } else if (m->place <= COLLECT_UNLOCK) {
        what = push_step(s, t);
    } else if (m->place <= NOTIFY_NEXT) {
        what = notify_step(s, t);
    } else if (m->place <= DELETE_WIPE) {
        what = delete_step(s, t);
    } else if (m->place <= DRAIN_NEXT) {
        what = drain_step(s, t, t == EXITER ? 0 : s->mine);
    } else {
        what = t == EXITER ? exiter_step(s) : adopter_step(s);
    }
    pass(m);
    return what;
}

static void remote_start(unsigned char *state)
{
    struct remote_state *s = (struct remote_state *)(void *)state;
    for (unsigned i = 0; i < SPANS; i++) {
        s->span[i] = (struct span_model){
            .alive = 1, .owner = 1, .state = MODEL_PARTIAL, .lists = LIST_PARTIAL};
    }
    s->span[0].used = 3;
    s->span[1].used = 1;
    s->thread[EXITER] = (struct thread_model){.place = FILL, .held = {1, 0}};
    s->thread[PUSHER_1] = (struct thread_model){.place = PUSH, .held = {1, 0}};
    s->thread[PUSHER_2] = (struct thread_model){.place = PUSH, .held = {1, 1}};
    s->thread[ADOPTER].place = ADOPT_CACHE;
}

// Every block has been freed. What is left must be where somebody will look.
static void remote_end(const unsigned char *state)
{
    const struct remote_state *s = (const struct remote_state *)(const void *)state;
    for (unsigned t = 0; t < REMOTE_THREADS; t++) {
        wrong_if(s->thread[t].place != ENDED, "a thread hangs");
    }
    wrong_if(s->dead[0] != 0 && s->pending[0] != 0, "a notification is left with a dead cache");
    for (unsigned i = 0; i < SPANS; i++) {
        const struct span_model *span = &s->span[i];
        if (span->alive == 0) {
            continue;
        }
        wrong_if(span->used != span->remote, "a block is lost");
        // A cache that a new thread has taken over passes on what it finds, at its next slow path.
        bool pending = ((s->pending[0] | s->pending[1]) >> i & 1) != 0;
        wrong_if(span->state == MODEL_FULL && !pending && (span->full == 0 || span->remote != 0),
                 "a notification is lost");
        wrong_if(span->lists == 0 && !(span->state == MODEL_FULL && span->owner == 0),
                 "a span is on no list");
        wrong_if(span->owner == 0 && !pending, "a span without blocks in use is left with central");
    }
}

static const struct model remote_model = {
    .name = "remote",
    .weaknesses = remote_weaknesses,
    .thread_names = remote_thread_names,
    .state_bytes = sizeof(struct remote_state),
    .thread_count = REMOTE_THREADS,
    .action_count = 2,
    .start = remote_start,
    .step = remote_step,
    .end = remote_end,
};

// --- walking ---

#define SEEN_COUNT ((size_t)1 << 24)
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

int main(int argc, char **argv)
{
    static const struct model *const models[] = {&claim_model, &remote_model};
    bool good = true;
    seen = malloc(SEEN_COUNT * sizeof(*seen));
    FRAME_CHECK(seen != NULL);
    for (size_t i = 0; i < ARRAY_COUNT(models); i++) {
        if (argc > 1 && strncmp(models[i]->name, argv[1], strlen(argv[1])) != 0) {
            continue;
        }
        for (unsigned weak = 0; models[i]->weaknesses[weak] != NULL; weak++) {
            good &= run_case(models[i], weak);
        }
    }
    return good ? 0 : 1;
}
