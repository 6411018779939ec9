// SPDX-License-Identifier: MIT
//
// The control socket's door: private descriptors, the directory, the socket, the clients.
//
// Model
//   The thread has a table of descriptors of its own: 0 is the signalfd that wakes it, 1 is the
//   socket, 2 leads nowhere. Its current directory is the socket's, its umask 0177.
//   A client has CLIENT_NS for its request. The CLIENTS-th and next ones push the oldest out, so
//   that silent ones stop nobody.
//
// Locking
//   None: all of it belongs to the one thread. Counters of the page are atomic for outside readers.
//
// Flow
//   control_serve -> server_open -> loop: ppoll -> client_accept, client_read -> control_ask ->
//   one send -> close; ends by idleness or stop -> unlink.
//
// Why this way
//   See os/leave.h and docs/design/007 for the descriptors.
//
// Go       none.
// Tests    test/system/control.py
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/option.h"
#include "control/control_int.h"
#include "os/clock.h"
#include "os/leave.h"
#include "os/sys.h"

#define CLIENTS 8
#define CLIENT_NS (3 * NS_PER_S)
#define DRAIN_TURNS 16

enum { FD_BELL = LEAVE_BELL, FD_LISTEN = 1 };

struct client {
    int fd; // -1: free
    uint64_t since_ns;
    size_t len;
    char buf[CONTROL_REQUEST_BYTES + 1]; // one more, to notice what is too long
};

struct server {
    struct client clients[CLIENTS];
    uint64_t used_ns; // when somebody last asked something, or rang
    struct control_file file;
};

// Folder, file, socket. What was open before is closed.
static long socket_open(struct server *server)
{
    long fd = control_file_make(&server->file, control_page.path, sizeof(control_page.path));
    if (fd < 0) {
        return fd;
    }
    sys_call3(SYS_dup3, fd, FD_LISTEN, O_CLOEXEC);
    sys_call1(SYS_close, fd);
    return 0;
}

// --- clients ---

static void client_close(struct client *client)
{
    sys_call1(SYS_close, client->fd);
    client->fd = -1;
}

static void client_drop(struct client *client)
{
    add_relaxed(&control_page.dropped, 1);
    client_close(client);
}

// One send: a reply is smaller than any socket's buffer, and who does not take it does not get it.
static void reply_send(int fd, const struct fmt *reply)
{
    sys_call6(SYS_sendto, fd, (long)reply->buf, (long)reply->len, MSG_NOSIGNAL | MSG_DONTWAIT, 0,
              0);
}

static void client_answer(struct server *server, struct client *client, enum control_parse parse,
                          const struct control_request *request)
{
    char buf[FMT_LINE_BYTES];
    if (parse == CONTROL_PARSE_DONE) {
        reply_send(client->fd, control_ask(request));
        add_relaxed(&control_page.served, 1);
        server->used_ns = clock_now_ns();
    } else {
        struct fmt reply;
        fmt_init(&reply, buf, sizeof(buf));
        control_reply_error(&reply, control_parse_text(parse));
        reply_send(client->fd, &reply);
        add_relaxed(&control_page.bad, 1);
    }
    // What lies unread when a socket is closed would take the reply with it.
    for (int i = 0; i < DRAIN_TURNS && sys_call3(SYS_read, client->fd, buf, sizeof(buf)) > 0; i++) {
    }
    client_close(client);
}

static void client_read(struct server *server, struct client *client)
{
    size_t room = sizeof(client->buf) - client->len;
    long got = sys_call3(SYS_read, client->fd, client->buf + client->len, room);
    if (got == -EAGAIN || got == -EINTR) {
        return;
    }
    if (got <= 0) {
        client_drop(client);
        return;
    }
    client->len += (size_t)got;
    struct control_request request;
    enum control_parse parse = control_request_parse(client->buf, client->len, &request);
    if (parse != CONTROL_PARSE_MORE) {
        client_answer(server, client, parse, &request);
    }
}

// The same user or root, at the other end when it connected.
static bool peer_allowed(int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t len = sizeof(peer);
    if (sys_call6(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&len, 0) != 0) {
        return false;
    }
    return peer.uid == 0 || peer.uid == (uid_t)sys_call0(SYS_geteuid);
}

// A free place, or that of the client who has been silent for the longest time.
static struct client *client_place(struct server *server)
{
    struct client *oldest = &server->clients[0];
    for (size_t i = 0; i < CLIENTS; i++) {
        struct client *client = &server->clients[i];
        if (client->fd < 0) {
            return client;
        }
        if (client->since_ns < oldest->since_ns) {
            oldest = client;
        }
    }
    client_drop(oldest);
    return oldest;
}

static void clients_accept(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++) {
        long fd = sys_call4(SYS_accept4, FD_LISTEN, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        if (!peer_allowed((int)fd)) {
            char buf[FMT_LINE_BYTES];
            struct fmt reply;
            fmt_init(&reply, buf, sizeof(buf));
            control_reply_error(&reply, "only the process's own user and root may ask");
            reply_send((int)fd, &reply);
            sys_call1(SYS_close, fd);
            add_relaxed(&control_page.refused, 1);
            continue;
        }
        struct client *client = client_place(server);
        client->fd = (int)fd;
        client->len = 0;
        client->since_ns = clock_now_ns();
        client_read(server, client); // most have said it by now
    }
}

// --- the loop ---

// Somebody rang: the bell goes silent; if the socket's file has gone, it is made anew.
static void bell_answer(struct server *server)
{
    struct signalfd_siginfo info;
    while (sys_call3(SYS_read, FD_BELL, &info, sizeof(info)) > 0) {
    }
    server->used_ns = clock_now_ns();
    if (!control_is_over() && !control_file_is_there(&server->file)) {
        control_opened(socket_open(server));
    }
}

// Drops who took too long, and tells when to look again; 0: never.
static uint64_t clients_expire(struct server *server, uint64_t now_ns)
{
    uint64_t next_ns = 0;
    for (size_t i = 0; i < CLIENTS; i++) {
        struct client *client = &server->clients[i];
        if (client->fd < 0) {
            continue;
        }
        uint64_t end_ns = client->since_ns + CLIENT_NS;
        if (now_ns >= end_ns) {
            client_drop(client);
        } else if (next_ns == 0 || end_ns < next_ns) {
            next_ns = end_ns;
        }
    }
    if (options_main.control != OPTION_CONTROL_ON) {
        uint64_t end_ns = server->used_ns + (uint64_t)options_main.control_idle * NS_PER_S;
        next_ns = next_ns == 0 ? end_ns : min_u64(next_ns, end_ns);
    }
    return next_ns;
}

static bool server_is_idle(const struct server *server, uint64_t now_ns)
{
    return options_main.control != OPTION_CONTROL_ON &&
           now_ns >= server->used_ns + (uint64_t)options_main.control_idle * NS_PER_S;
}

static void server_poll(struct server *server, uint64_t now_ns, uint64_t next_ns)
{
    struct pollfd polls[2 + CLIENTS];
    polls[0] = (struct pollfd){.fd = FD_BELL, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = FD_LISTEN, .events = POLLIN};
    for (size_t i = 0; i < CLIENTS; i++) {
        polls[2 + i] = (struct pollfd){.fd = server->clients[i].fd, .events = POLLIN};
    }
    uint64_t sleep_ns = next_ns > now_ns ? next_ns - now_ns : 0;
    struct timespec wait = {.tv_sec = (time_t)(sleep_ns / NS_PER_S),
                            .tv_nsec = (long)(sleep_ns % NS_PER_S)};
    long ready =
        sys_call6(SYS_ppoll, (long)polls, 2 + CLIENTS, next_ns != 0 ? (long)&wait : 0, 0, 0, 0);
    if (ready <= 0) {
        return;
    }
    if (polls[0].revents != 0) {
        bell_answer(server);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        if (polls[2 + i].revents != 0) {
            client_read(server, &server->clients[i]);
        }
    }
    if (polls[1].revents != 0) {
        clients_accept(server);
    }
}

void control_serve(void)
{
    struct server server = {.used_ns = clock_now_ns()};
    for (size_t i = 0; i < CLIENTS; i++) {
        server.clients[i].fd = -1;
    }
    long error = leave_process(load_relaxed(&control_page.signal), 0177, NULL);
    if (error == 0) {
        error = socket_open(&server);
    }
    control_opened(error);
    if (error != 0) {
        return;
    }
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        uint64_t next_ns = clients_expire(&server, now_ns);
        if (control_is_over() || server_is_idle(&server, now_ns)) {
            break;
        }
        server_poll(&server, now_ns, next_ns);
    }
    control_file_remove(&server.file);
    control_state_set(CONTROL_CLOSED);
}
