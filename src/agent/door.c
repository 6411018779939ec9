// SPDX-License-Identifier: MIT
//
// The door: one thread with all sockets, which waits for all of them at once.
//
// Flow
//   door_run -> leave_process -> wants_act -> loop: door_time, ppoll -> bell, listeners, clients.
//
// Why this way
//   poll and not epoll: some hundred descriptors at most, and nothing that must be kept in step.
//
// Go  net/http/server.go Serve; runtime/netpoll.go.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "agent/agent_int.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/leave.h"
#include "os/sys.h"

#define ACCEPT_TURNS 64
#define RETRY_NS (100 * NS_PER_MS)
#define OWN_FDS 16 // descriptors besides connections

// --- what is wanted ---

static void where_tell(char *where, const struct listener *listener)
{
    memcpy(where, listener->where, AGENT_WHERE_BYTES);
}

// Opens what is wanted and not open, closes what is open and not wanted.
static void wants_act(struct door *door)
{
    uint32_t wants = load_acquire(&agent_main.wants); // pairs with add_seq in wants_ask
    if (wants == door->wants_seen) {
        return;
    }
    door->wants_seen = wants;
    agent_main.http_error = 0;
    agent_main.gops_error = 0;
    if (door->diag < 0) {
        door->diag = peer_diag_open();
    }
    if (agent_main.want_http[0] == '\0') {
        listener_close(&door->http);
    } else if (door->http.fd < 0) {
        agent_main.http_error = listener_open_http(&door->http, agent_main.want_http, &door->allow);
    }
    if (!agent_main.want_gops) {
        listener_close(&door->gops);
    } else if (door->gops.fd < 0) {
        agent_main.gops_error = listener_open_gops(&door->gops, agent_main.gops_folder, door->mask);
    }
    where_tell(agent_main.http_where, &door->http);
    where_tell(agent_main.gops_where, &door->gops);
    store_release(&agent_main.acted, wants); // pairs with load_acquire in acted_wait
    futex_wake(&agent_main.acted, INT32_MAX);
}

// --- connections ---

// Who has to go when there is no room: one that has had its answer, else the one that has been
// silent, or has not taken its answer, for the longest time. NULL: all are being worked for.
static struct conn *conn_victim(struct door *door)
{
    static const enum conn_state order[] = {CONN_DRAIN, CONN_READ, CONN_SEND};
    for (size_t turn = 0; turn < ARRAY_COUNT(order); turn++) {
        struct conn *oldest = NULL;
        for (size_t i = 0; i < door->conn_max; i++) {
            struct conn *conn = &door->conns[i];
            if (conn->state == order[turn] &&
                (oldest == NULL || conn->since_ns < oldest->since_ns)) {
                oldest = conn;
            }
        }
        if (oldest != NULL) {
            return oldest;
        }
    }
    return NULL;
}

static bool conn_evict(struct door *door)
{
    struct conn *conn = conn_victim(door);
    if (conn == NULL) {
        return false;
    }
    add_relaxed(&agent_main.dropped, conn->state != CONN_DRAIN);
    conn_close(conn);
    return true;
}

static struct conn *conn_place(struct door *door)
{
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < door->conn_max; i++) {
            if (door->conns[i].state == CONN_FREE) {
                return &door->conns[i];
            }
        }
        if (!conn_evict(door)) {
            return NULL;
        }
    }
    return NULL;
}

static void conn_start(struct door *door, int fd, bool gops, bool local, uint64_t now_ns)
{
    struct conn *conn = conn_place(door);
    if (conn == NULL) {
        add_relaxed(&agent_main.dropped, 1);
        sys_call1(SYS_close, fd);
        return;
    }
    conn_open(conn, fd, gops, local, now_ns);
    peer_read(fd, local, door->diag, &conn->peer);
    if (access_decide(&door->allow, &conn->peer, gops ? "gops" : NULL) == ACCESS_NO) {
        conn_refuse(conn, now_ns);
    }
    if (conn->state == CONN_READ) {
        conn_read(door, conn, now_ns); // most have said it by now
    }
}

static void listener_accept(struct door *door, struct listener *listener, bool gops,
                            uint64_t now_ns)
{
    for (int turn = 0; turn < ACCEPT_TURNS; turn++) {
        long fd = sys_call4(SYS_accept4, listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
            if (!conn_evict(door)) {
                door->retry_ns = now_ns + RETRY_NS; // asking at once again would be spinning
                return;
            }
            continue;
        }
        if (fd == -ECONNABORTED || fd == -EINTR) {
            continue;
        }
        if (fd < 0) {
            return;
        }
        conn_start(door, (int)fd, gops, listener->local, now_ns);
    }
}

// Answers that nobody takes must not fill memory.
static void answers_bound(struct door *door)
{
    for (;;) {
        size_t bytes = 0;
        struct conn *oldest = NULL;
        for (size_t i = 0; i < door->conn_max; i++) {
            struct conn *conn = &door->conns[i];
            if (conn->state == CONN_SEND) {
                bytes += conn->job.region.mapped_bytes;
                if (oldest == NULL || conn->since_ns < oldest->since_ns) {
                    oldest = conn;
                }
            }
        }
        if (bytes <= ANSWERS_MAX || oldest == NULL) {
            return;
        }
        add_relaxed(&agent_main.dropped, 1);
        conn_close(oldest);
    }
}

static void door_worked(struct door *door, uint64_t now_ns)
{
    for (size_t i = 0; i < door->conn_max; i++) {
        struct conn *conn = &door->conns[i];
        // Pairs with store_release in job_take and work_give.
        if (conn->state == CONN_WORK && load_acquire(&conn->job_state) == JOB_DONE) {
            store_relaxed(&conn->job_state, JOB_NONE);
            conn_worked(door, conn, now_ns);
        }
    }
    answers_bound(door);
}

// --- the loop ---

static bool conn_has_more(const struct conn *conn)
{
    return conn->state == CONN_READ && conn->in_len != 0 && !conn->gops;
}

static size_t door_working(const struct door *door)
{
    size_t count = 0;
    for (size_t i = 0; i < door->conn_max; i++) {
        count += door->conns[i].state == CONN_WORK;
    }
    return count;
}

// Does what its time has come for, and tells when to look again; 0: never.
static uint64_t door_time(struct door *door, uint64_t now_ns)
{
    uint64_t next_ns = door->retry_ns > now_ns ? door->retry_ns : 0;
    for (size_t i = 0; i < door->conn_max; i++) {
        struct conn *conn = &door->conns[i];
        uint64_t time_ns = conn_time(conn);
        if (time_ns != 0 && time_ns <= now_ns && conn->state == CONN_WAIT) {
            conn->state = CONN_WORK;
            conn->since_ns = now_ns;
            work_give(conn, door_working(door));
        } else if (time_ns != 0 && time_ns <= now_ns) {
            conn_expire(conn, now_ns);
        } else if (conn_has_more(conn)) {
            conn_read(door, conn, now_ns);
        }
        time_ns = conn_has_more(conn) ? now_ns + 1 : conn_time(conn);
        if (time_ns != 0 && (next_ns == 0 || time_ns < next_ns)) {
            next_ns = time_ns;
        }
    }
    return next_ns;
}

static short conn_events(const struct conn *conn)
{
    switch (conn->state) {
    case CONN_READ:
    case CONN_DRAIN:
        return POLLIN;
    case CONN_SEND:
        return POLLOUT;
    case CONN_WAIT:
        return POLLRDHUP;
    case CONN_WORK:
        return load_relaxed(&conn->job.stop) == 0 ? POLLRDHUP : 0;
    default:
        return 0;
    }
}

static void conn_ready(struct door *door, struct conn *conn, uint64_t now_ns)
{
    switch (conn->state) {
    case CONN_READ:
        conn_read(door, conn, now_ns);
        break;
    case CONN_DRAIN:
        conn_drain(conn);
        break;
    case CONN_SEND:
        conn_send(conn, now_ns);
        break;
    case CONN_WAIT: // gone before its seconds were over
        add_relaxed(&agent_main.dropped, 1);
        conn_close(conn);
        break;
    case CONN_WORK: // what takes long ends early; the rest is found out when it is sent
        store_relaxed(&conn->job.stop, 1);
        break;
    default:
        break;
    }
}

static void bell_silence(void)
{
    struct signalfd_siginfo info;
    while (sys_call3(SYS_read, LEAVE_BELL, &info, sizeof(info)) > 0) {
    }
}

static void door_poll(struct door *door, struct pollfd *polls, uint64_t now_ns, uint64_t next_ns)
{
    bool accepting = door->retry_ns <= now_ns;
    polls[0] = (struct pollfd){.fd = LEAVE_BELL, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = accepting ? door->http.fd : -1, .events = POLLIN};
    polls[2] = (struct pollfd){.fd = accepting ? door->gops.fd : -1, .events = POLLIN};
    for (size_t i = 0; i < door->conn_max; i++) {
        struct conn *conn = &door->conns[i];
        short events = conn_events(conn);
        polls[3 + i] = (struct pollfd){.fd = events != 0 ? conn->fd : -1, .events = events};
    }
    uint64_t sleep_ns = next_ns > now_ns ? next_ns - now_ns : 0;
    struct timespec wait = {.tv_sec = (time_t)(sleep_ns / NS_PER_S),
                            .tv_nsec = (long)(sleep_ns % NS_PER_S)};
    long ready = sys_call6(SYS_ppoll, (long)polls, (long)(3 + door->conn_max),
                           next_ns != 0 ? (long)&wait : 0, 0, 0, 0);
    if (ready <= 0) {
        return;
    }
    now_ns = clock_now_ns();
    if (polls[0].revents != 0) {
        bell_silence();
    }
    // Before new ones come, which could take the place of one that is ready.
    for (size_t i = 0; i < door->conn_max; i++) {
        if (polls[3 + i].revents != 0) {
            conn_ready(door, &door->conns[i], now_ns);
        }
    }
    if (polls[1].revents != 0) {
        listener_accept(door, &door->http, false, now_ns);
    }
    if (polls[2].revents != 0) {
        listener_accept(door, &door->gops, true, now_ns);
    }
}

static void door_loop(struct door *door)
{
    struct pollfd polls[3 + AGENT_CONNS];
    for (;;) {
        wants_act(door);
        if (agent_is_over() || (door->http.fd < 0 && door->gops.fd < 0)) {
            return;
        }
        uint64_t now_ns = clock_now_ns();
        door_worked(door, now_ns);
        uint64_t next_ns = door_time(door, now_ns);
        door_poll(door, polls, now_ns, next_ns);
    }
}

static void door_close(struct door *door)
{
    listener_close(&door->http);
    listener_close(&door->gops);
    for (size_t i = 0; i < door->conn_max; i++) {
        store_relaxed(&door->conns[i].job.stop, 1);
    }
    where_tell(agent_main.http_where, &door->http);
    where_tell(agent_main.gops_where, &door->gops);
    workers_end();
    for (size_t i = 0; i < door->conn_max; i++) {
        if (door->conns[i].state != CONN_FREE) {
            store_relaxed(&door->conns[i].job_state, JOB_NONE);
            conn_close(&door->conns[i]);
        }
    }
}

static size_t conn_limit(void)
{
    struct rlimit limit = {.rlim_cur = AGENT_CONNS + OWN_FDS};
    sys_call4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
    uint64_t room = limit.rlim_cur > OWN_FDS ? limit.rlim_cur - OWN_FDS : 4;
    return (size_t)min_u64(max_u64(room, 4), AGENT_CONNS);
}

void door_run(void *arg)
{
    (void)arg;
    struct door door = {.conns = agent_main.conns, .http.fd = -1, .gops.fd = -1, .diag = -1};
    uint32_t mask = 0;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-http");
    store_seq(&agent_main.door_tid, (uint32_t)sys_call0(SYS_gettid)); // pairs with agent_ring_door
    long error = leave_process(DOOR_SIGNAL, 0177, &mask);
    door.mask = (mode_t)mask;
    door.conn_max = conn_limit();
    allow_read(options_main.http_allow.text, &door.allow);
    if (error != 0) {
        agent_main.http_error = error;
        agent_main.gops_error = error;
        // Pairs with load_acquire in acted_wait.
        store_release(&agent_main.acted, load_acquire(&agent_main.wants));
        futex_wake(&agent_main.acted, INT32_MAX);
    } else {
        door_loop(&door);
        door_close(&door);
    }
    store_seq(&agent_main.door_tid, 0);
    store_release(&agent_main.door_gone, 1); // pairs with load_acquire in keeper_run
    add_seq(&agent_main.keeper_bell, 1);
    futex_wake(&agent_main.keeper_bell, 1);
}
