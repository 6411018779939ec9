// SPDX-License-Identifier: MIT
//
// Remote model: every interleaving of frees from other threads with their notifications
// (span/remote.c), of a thread's end, and of adoption from central (span/central.c). Commit tier.
//
// Model
//   Two spans of one class, two caches, central. The exiter owns the spans, fills them, and ends;
//   the pushers free blocks into them; the adopter takes the exiter's cache over, or one of its
//   own, and adopts what central has, or makes and deletes spans on records that have become free.
//   A step under the CENTRAL lock is one access to what others look at without it.
//
// Go       none
#include "walk.h"

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
// Lists, a bit each; those of cache c are shifted by c.
#define LIST_CENTRAL 1u
#define LIST_PARTIAL 2u
#define LIST_FULL 8u

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
    uint8_t lock; // CENTRAL: who holds it, plus one
    uint8_t late; // a store of owner = NULL that is not seen yet: span plus one
    uint8_t mine; // the adopter's cache
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
        return central_lock(s, t, weakness == REMOTE_NO_LIST_TAG ? COLLECT_OWNER : COLLECT_TAG);
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

int main(void)
{
    return walk_main(&remote_model);
}
