// SPDX-License-Identifier: MIT
//
// One connection: a request is read, given away, sent, and the next one or the end.
//
// Flow
//   conn_read -> http_feed or gops_parse -> request_begin -> work_give ... conn_worked -> conn_send
//   -> conn_read of the next request, or conn_drain.
//
// Go  net/http/server.go conn.serve, closeWriteAndWait. What lies unread when a socket is closed
//     would take the answer with it: so every end is shutdown, then reading to the end.
#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "agent/agent_int.h"
#include "os/clock.h"
#include "os/sys.h"

#define DRAIN_TURNS 64
#define DRAIN_BYTES (16 * MIB) // who sends more than that after his answer does without its end
#define SENDFILE_BYTES (1 * MIB)

static void state_set(struct conn *conn, enum conn_state state, uint64_t now_ns)
{
    conn->state = state;
    conn->since_ns = now_ns;
}

// Ready for a request; what has been read already stays.
static void request_clear(struct conn *conn)
{
    region_end(&conn->job.region);
    memset(&conn->job, 0, sizeof(conn->job));
    region_init(&conn->job.region, ANSWER_MAX + HTTP_BODY_MAX);
    conn->job.file = -1;
    conn->job.query = "";
    conn->job.tail = "";
    conn->job.body = "";
    http_init(&conn->http, &conn->job.region);
    answer_init(&conn->job.answer, &conn->job.region);
    store_relaxed(&conn->job_state, JOB_NONE);
}

void conn_open(struct conn *conn, int fd, bool gops, bool local, uint64_t now_ns)
{
    conn->fd = fd;
    conn->gops = gops;
    conn->local = local;
    conn->in_len = 0;
    conn->head_only = false;
    conn->keep_alive = false;
    conn->refused = false;
    request_clear(conn);
    state_set(conn, CONN_READ, now_ns);
}

// Lets go what the job holds besides memory.
static void job_abandon(struct conn *conn)
{
    struct job *job = &conn->job;
    if (conn->state == CONN_WAIT) {
        job->gone = true;
        job_run(job);
    }
    if (job->file >= 0) {
        sys_call1(SYS_close, job->file);
        job->file = -1;
    }
}

void conn_close(struct conn *conn)
{
    job_abandon(conn);
    region_end(&conn->job.region);
    sys_call1(SYS_close, conn->fd);
    conn->fd = -1;
    conn->state = CONN_FREE;
}

static void conn_drop(struct conn *conn)
{
    add_relaxed(&agent_main.dropped, 1);
    conn_close(conn);
}

// --- sending ---

static void end_begin(struct conn *conn, uint64_t now_ns)
{
    job_abandon(conn);
    region_end(&conn->job.region);
    sys_call2(SYS_shutdown, conn->fd, SHUT_WR);
    state_set(conn, CONN_DRAIN, now_ns);
    conn->sent = 0;
    conn_drain(conn);
}

static void send_begin(struct conn *conn, uint64_t now_ns)
{
    struct answer *answer = &conn->job.answer;
    struct fmt head;
    if (answer->cut) {
        answer_error(answer, 500, "there is no memory for the answer");
    }
    fmt_init(&head, conn->head, sizeof(conn->head));
    if (!conn->gops) {
        answer_head(answer, conn->keep_alive, &head);
    }
    conn->head_len = head.len;
    conn->head_sent = false;
    conn->sent = 0;
    conn->send = conn->head_only ? NULL : answer->first;
    state_set(conn, CONN_SEND, now_ns);
    conn_send(conn, now_ns);
}

// Sends what there is of bytes[count] from conn->sent on; true when all of it has gone.
static bool part_send(struct conn *conn, const char *bytes, size_t count, int flags, long *error)
{
    if (conn->sent < count) {
        long done =
            sys_call6(SYS_sendto, conn->fd, (long)(bytes + conn->sent), (long)(count - conn->sent),
                      MSG_NOSIGNAL | MSG_DONTWAIT | flags, 0, 0);
        if (done < 0) {
            *error = done;
            return false;
        }
        conn->sent += (size_t)done;
    }
    if (conn->sent < count) {
        return false;
    }
    conn->sent = 0;
    return true;
}

static bool file_send(struct conn *conn, long *error)
{
    struct job *job = &conn->job;
    while (job->file_bytes != 0) {
        size_t count = min_size((size_t)job->file_bytes, SENDFILE_BYTES);
        long done = sys_call4(SYS_sendfile, conn->fd, job->file, NULL, count);
        if (done <= 0) {
            *error = done == 0 ? -EIO : done; // shorter than it was
            return false;
        }
        job->file_bytes -= (uint64_t)done;
        if ((size_t)done < count) {
            return false; // others have their turn
        }
    }
    return true;
}

// True when everything has gone; *error is 0 while there is just no room.
static bool answer_send(struct conn *conn, long *error)
{
    if (!conn->head_sent) {
        if (!part_send(conn, conn->head, conn->head_len, conn->send != NULL ? MSG_MORE : 0,
                       error)) {
            return false;
        }
        conn->head_sent = true;
    }
    while (conn->send != NULL) {
        int more = conn->send->next != NULL ? MSG_MORE : 0;
        if (!part_send(conn, conn->send->bytes, conn->send->len, more, error)) {
            return false;
        }
        conn->send = conn->send->next;
    }
    return conn->job.file < 0 || conn->head_only || file_send(conn, error);
}

void conn_send(struct conn *conn, uint64_t now_ns)
{
    long error = 0;
    if (answer_send(conn, &error)) {
        add_relaxed(&agent_main.served, 1);
        if (!conn->keep_alive) {
            end_begin(conn, now_ns);
            return;
        }
        if (conn->job.file >= 0) {
            sys_call1(SYS_close, conn->job.file);
        }
        request_clear(conn);
        state_set(conn, CONN_READ, now_ns);
        return;
    }
    if (error != 0 && error != -EAGAIN && error != -EINTR) {
        conn_drop(conn);
        return;
    }
    conn->since_ns = now_ns; // it has got on, or has just begun
}

// An answer without a worker.
static void answer_now(struct conn *conn, int status, const char *text, uint64_t now_ns)
{
    conn->keep_alive = false;
    answer_error(&conn->job.answer, status, text);
    send_begin(conn, now_ns);
}

static void refusal_send(struct conn *conn, uint64_t now_ns)
{
    answer_now(conn, 403,
               "this user may not ask: only the process's own user and root, unless "
               "EBB=http_allow=uid:NAME says otherwise",
               now_ns);
}

// An answer that comes before the question is none to some clients (Go's): it waits for the first
// bytes, and looks at none of them.
void conn_refuse(struct conn *conn, uint64_t now_ns)
{
    add_relaxed(&agent_main.refused, 1);
    if (conn->gops) {
        conn->keep_alive = false;
        end_begin(conn, now_ns);
    } else {
        conn->refused = true;
    }
}

// --- requests ---

static size_t working_count(const struct door *door, enum conn_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < door->conn_max; i++) {
        count += door->conns[i].state == state;
    }
    return count;
}

static void request_give(struct door *door, struct conn *conn, uint64_t now_ns)
{
    state_set(conn, CONN_WORK, now_ns);
    work_give(conn, working_count(door, CONN_WORK));
}

// May it be asked for by this name of the machine? A web site can give its own name our address;
// it cannot make the browser say another name.
static bool host_is_right(const struct conn *conn, enum access access)
{
    const struct http *http = &conn->http;
    if (access == ACCESS_BY_ANY || (conn->local && http->host_len == 0)) {
        return true;
    }
    return address_host_is_literal(http->host, http->host_len);
}

static const char *allow_text(const struct route *route)
{
    return (route->methods & ROUTE_POST) != 0 ? "GET, HEAD, POST" : "GET, HEAD";
}

static void http_begin(struct door *door, struct conn *conn, uint64_t now_ns)
{
    struct http *http = &conn->http;
    struct job *job = &conn->job;
    const char *path;
    size_t path_len;
    size_t tail;
    bool post = http->parser.method == HTTP_POST;
    conn->keep_alive = http->keep_alive;
    conn->head_only = http->parser.method == HTTP_HEAD;
    if (!query_split(http->url, &path, &path_len, &job->query)) {
        answer_now(conn, 400, "the address is no path", now_ns);
        return;
    }
    enum access access = access_decide(&door->allow, &conn->peer, path);
    if (access == ACCESS_NO) {
        add_relaxed(&agent_main.refused, 1);
        refusal_send(conn, now_ns);
        return;
    }
    if (!host_is_right(conn, access)) {
        add_relaxed(&agent_main.refused, 1);
        answer_now(conn, 403,
                   "the Host header names neither an IP address nor localhost: a web page could "
                   "ask in your name; ask by the address",
                   now_ns);
        return;
    }
    job->route = route_find(path, path_len, &tail);
    if (job->route == NULL) {
        answer_error(&job->answer, 404, "404 page not found");
        send_begin(conn, now_ns);
        return;
    }
    if (!post && !conn->head_only && http->parser.method != HTTP_GET) {
        job->answer.allow = allow_text(job->route);
    } else if (post && (job->route->methods & ROUTE_POST) == 0) {
        job->answer.allow = allow_text(job->route);
    }
    if (job->answer.allow != NULL) {
        answer_error(&job->answer, 405, "Method Not Allowed");
        send_begin(conn, now_ns);
        return;
    }
    job->tail = path + tail;
    job->post = post;
    job->body = http->body_len != 0 ? http->body : "";
    job->body_len = http->body_len;
    request_give(door, conn, now_ns);
}

static void gops_begin(struct door *door, struct conn *conn, uint64_t now_ns)
{
    conn->keep_alive = false;
    conn->head_only = false;
    conn->job.command = (uint8_t)conn->in[0];
    conn->job.body = conn->in + 1;
    conn->job.body_len = conn->in_len - 1;
    request_give(door, conn, now_ns);
}

static void http_refuse(struct conn *conn, enum http_progress progress, uint64_t now_ns)
{
    add_relaxed(&agent_main.bad, 1);
    conn->head_only = false;
    switch (progress) {
    case HTTP_URL_LONG:
        answer_now(conn, 414, "the address is longer than 1023 bytes", now_ns);
        break;
    case HTTP_HEAD_LONG:
        answer_now(conn, 431, "the headers are longer than 16 KiB", now_ns);
        break;
    case HTTP_BODY_LONG:
        answer_now(conn, 413, "the body is longer than 1 MiB", now_ns);
        break;
    default:
        answer_now(conn, 400, "this is no HTTP request", now_ns);
        break;
    }
}

// Parses what has been read, as far as it belongs to this request.
static void conn_parse(struct door *door, struct conn *conn, uint64_t now_ns)
{
    if (conn->gops) {
        enum gops_progress progress = gops_parse((const uint8_t *)conn->in, conn->in_len);
        if (progress == GOPS_DONE) {
            gops_begin(door, conn, now_ns);
        } else if (progress == GOPS_UNKNOWN) {
            add_relaxed(&agent_main.bad, 1);
            end_begin(conn, now_ns);
        }
        return;
    }
    size_t used;
    enum http_progress progress = http_feed(&conn->http, conn->in, conn->in_len, &used);
    conn->in_len -= used;
    memmove(conn->in, conn->in + used, conn->in_len);
    if (progress == HTTP_DONE) {
        http_begin(door, conn, now_ns);
    } else if (progress != HTTP_MORE) {
        http_refuse(conn, progress, now_ns);
    }
}

void conn_read(struct door *door, struct conn *conn, uint64_t now_ns)
{
    // Several turns for bodies, few enough that others have theirs.
    for (int turn = 0; turn < DRAIN_TURNS && conn->state == CONN_READ; turn++) {
        if (conn->in_len == 0 || conn->gops) {
            long got = sys_call3(SYS_read, conn->fd, conn->in + conn->in_len,
                                 sizeof(conn->in) - conn->in_len);
            if (got == -EAGAIN || got == -EINTR) {
                return;
            }
            if (got <= 0) {
                if (conn->gops || http_any_seen(&conn->http)) {
                    conn_drop(conn);
                } else {
                    conn_close(conn); // the end of a connection that was kept
                }
                return;
            }
            conn->in_len += (size_t)got;
        }
        if (conn->refused) {
            conn->in_len = 0;
            refusal_send(conn, now_ns);
            return;
        }
        conn_parse(door, conn, now_ns);
    }
}

void conn_drain(struct conn *conn)
{
    char buf[4096];
    for (int turn = 0; turn < DRAIN_TURNS; turn++) {
        long got = sys_call3(SYS_read, conn->fd, buf, sizeof(buf));
        if (got == -EAGAIN || got == -EINTR) {
            return;
        }
        conn->sent += got > 0 ? (size_t)got : 0;
        if (got <= 0 || conn->sent > DRAIN_BYTES) {
            conn_close(conn);
            return;
        }
    }
}

void conn_worked(struct door *door, struct conn *conn, uint64_t now_ns)
{
    struct job *job = &conn->job;
    if (job->wait_ns == 0) {
        send_begin(conn, now_ns);
        return;
    }
    state_set(conn, CONN_WAIT, now_ns);
    if (working_count(door, CONN_WAIT) > AGENT_DELTAS) {
        job->gone = true;
        job_run(job);
        conn->state = CONN_WORK; // its job holds nothing any more
        answer_now(conn, 503, "too many requests are waiting for their seconds", now_ns);
    }
}

// --- time ---

uint64_t conn_time(const struct conn *conn)
{
    switch (conn->state) {
    case CONN_READ:
        return conn->since_ns + (conn->refused ? REFUSED_NS : READ_NS);
    case CONN_SEND:
        return conn->since_ns + SEND_NS;
    case CONN_DRAIN:
        return conn->since_ns + DRAIN_NS;
    case CONN_WAIT:
        return conn->since_ns + conn->job.wait_ns;
    default:
        return 0;
    }
}

void conn_expire(struct conn *conn, uint64_t now_ns)
{
    (void)now_ns;
    if (conn->state == CONN_READ && !conn->gops && !http_any_seen(&conn->http)) {
        conn_close(conn); // kept for a next request that did not come, or opened for none
    } else if (conn->state == CONN_DRAIN) {
        conn_close(conn);
    } else {
        conn_drop(conn);
    }
}
