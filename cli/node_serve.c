// SPDX-License-Identifier: MIT
//
// The server of ebb node: /metrics and /healthz over HTTP, by libmicrohttpd.
//
// It has a thread of its own and sees finished text alone. GET and HEAD only; a Host line that is
// no address and not localhost is refused where only this machine is served, so that no web page
// can read it by a name that points here.
//
// Go  net/http and promhttp, in much of what exports to Prometheus.
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/address.h"
#include "node.h"
#include "os/clock.h"

#define CONNECTIONS_MAX 32
#define TIMEOUT_SECONDS 10
#define ADDRESS_BYTES 96
// The rounds have stopped when none has ended for so many intervals and the longest capture.
#define LATE_INTERVALS 3
#define LATE_NS (UINT64_C(120) * NS_PER_S)

struct serve {
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    char *text; // (lock)
    size_t len;
    uint64_t made_ns;
    uint64_t every_ns;
    bool local;
    char address[ADDRESS_BYTES];
};

static struct MHD_Response *text_response(const char *text, size_t len, const char *type)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", type);
        MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    }
    return response;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status,
                                   const char *text)
{
    struct MHD_Response *response = text_response(text, strlen(text), "text/plain; charset=utf-8");
    if (response == NULL) {
        return MHD_NO;
    }
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    }
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_metrics(struct serve *serve, struct MHD_Connection *connection)
{
    pthread_mutex_lock(&serve->lock);
    struct MHD_Response *response =
        serve->text != NULL
            ? text_response(serve->text, serve->len, "text/plain; version=0.0.4; charset=utf-8")
            : NULL;
    pthread_mutex_unlock(&serve->lock);
    if (response == NULL) {
        return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                           "the first look is under way\n");
    }
    enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_health(struct serve *serve, struct MHD_Connection *connection)
{
    char text[96];
    pthread_mutex_lock(&serve->lock);
    uint64_t made = serve->made_ns;
    pthread_mutex_unlock(&serve->lock);
    uint64_t age = clock_now_ns() - made;
    bool good = made != 0 && age < LATE_INTERVALS * serve->every_ns + LATE_NS;
    snprintf(text, sizeof(text), "%s\nlast round %llu s ago\n", good ? "ok" : "late",
             (unsigned long long)(age / NS_PER_S));
    return answer_text(connection, good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                       made != 0 ? text : "starting\n");
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_bytes, void **state)
{
    struct serve *serve = arg;
    static int begun;
    (void)version, (void)data;
    if (*state == NULL) {
        *state = &begun; // the answer is given when the request is whole
        return MHD_YES;
    }
    if (*data_bytes != 0) {
        *data_bytes = 0; // a body is not read
        return MHD_YES;
    }
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    if (serve->local && host != NULL && !address_host_is_literal(host, strlen(host))) {
        return answer_text(connection, MHD_HTTP_FORBIDDEN,
                           "ask by an address or localhost: names could be anybody's\n");
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
    }
    if (strcmp(url, "/metrics") == 0) {
        return answer_metrics(serve, connection);
    }
    if (strcmp(url, "/healthz") == 0) {
        return answer_health(serve, connection);
    }
    if (strcmp(url, "/") == 0) {
        return answer_text(connection, MHD_HTTP_OK,
                           "ebb node\n/metrics  for Prometheus\n/healthz\n");
    }
    return answer_text(connection, MHD_HTTP_NOT_FOUND, "there are /metrics and /healthz\n");
}

// ---- the address --------------------------------------------------------------------------------

// "9709" and ":9709" are of this machine; everything else has to be spelled out.
static bool where_parse(const char *where, struct address *address)
{
    char text[ADDRESS_BYTES];
    const char *port = where[0] == ':' ? where + 1 : where;
    if (port[0] != '\0' && strspn(port, "0123456789") == strlen(port)) {
        snprintf(text, sizeof(text), "127.0.0.1:%s", port);
    } else {
        snprintf(text, sizeof(text), "%s", where);
    }
    return address_parse(text, strlen(text), address) && address->kind != ADDRESS_UNIX;
}

static socklen_t sockaddr_make(const struct address *address, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (address->kind == ADDRESS_IPV6) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(address->port);
        memcpy(&six->sin6_addr, address->bytes, sizeof(six->sin6_addr));
        return sizeof(*six);
    }
    struct sockaddr_in *four = (struct sockaddr_in *)out;
    four->sin_family = AF_INET;
    four->sin_port = htons(address->port);
    memcpy(&four->sin_addr, address->bytes, sizeof(four->sin_addr));
    return sizeof(*four);
}

static void address_note(struct serve *serve, struct address *address)
{
    struct fmt text;
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(serve->daemon, MHD_DAEMON_INFO_BIND_PORT);
    if (info != NULL && info->port != 0) {
        address->port = info->port;
    }
    fmt_init(&text, serve->address, sizeof(serve->address));
    address_format(&text, address);
}

struct serve *serve_open(const char *where, uint64_t every_ns)
{
    struct address address;
    struct sockaddr_storage storage;
    struct serve *serve = calloc(1, sizeof(*serve));
    if (serve == NULL) {
        cli_fail("node", "out of memory");
        return NULL;
    }
    if (!where_parse(where, &address)) {
        cli_fail("node",
                 "--listen=%.60s is no address; right are 9709 (this machine alone), "
                 "127.0.0.1:9709, 0.0.0.0:9709, [::1]:9709",
                 where);
        free(serve);
        return NULL;
    }
    pthread_mutex_init(&serve->lock, NULL);
    serve->every_ns = every_ns;
    serve->local = address_is_local(&address);
    sockaddr_make(&address, &storage);
    errno = 0;
    serve->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | (address.kind == ADDRESS_IPV6 ? MHD_USE_IPv6 : 0),
        address.port, NULL, NULL, answer, serve, MHD_OPTION_SOCK_ADDR, &storage,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)TIMEOUT_SECONDS, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    if (serve->daemon == NULL) {
        cli_fail("node", "cannot listen at %s: %s", where,
                 errno != 0 ? strerror(errno) : "the server did not start");
        free(serve);
        return NULL;
    }
    address_note(serve, &address);
    return serve;
}

void serve_text(struct serve *serve, char *text, size_t len)
{
    pthread_mutex_lock(&serve->lock);
    char *old = serve->text;
    serve->text = text;
    serve->len = len;
    serve->made_ns = clock_now_ns();
    pthread_mutex_unlock(&serve->lock);
    free(old);
}

const char *serve_address(const struct serve *serve)
{
    return serve->address;
}

void serve_close(struct serve *serve)
{
    MHD_stop_daemon(serve->daemon);
    pthread_mutex_destroy(&serve->lock);
    free(serve->text);
    free(serve);
}
