// SPDX-License-Identifier: MIT
//
// Getting a profile: from a file, or over HTTP by libcurl, with a bar while a server collects.
//
// Go  github.com/google/pprof internal/driver/fetch.go. Unlike Go: unix sockets; no symbols are
//     asked for.
#include "prof.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BYTES_MAX (UINT64_C(512) << 20)
#define CONNECT_SECONDS 5
// How long a server may take beyond the seconds it was asked to collect.
#define PATIENCE_SECONDS 60
#define PROBE_MS 1000

// ---- files -------------------------------------------------------------------------------------

static int file_fail(const char *path, int error)
{
    if (error == ENOENT) {
        const char *kind = prof_kind_nearest(path);
        if (kind != NULL && strchr(path, '/') == NULL && strchr(path, '.') == NULL) {
            return cli_fail("profile",
                            "there is no file \"%s\"; if the kind %s is meant: `ebb "
                            "profile %s PID|URL|FILE`",
                            path, kind, kind);
        }
        return cli_fail("profile",
                        "there is no file \"%s\", and it is no PID, host:port, URL or unix:/path",
                        path);
    }
    return cli_fail("profile", "cannot read %s: %s", path, strerror(error));
}

static int file_read(const char *path, struct prof_bytes *out)
{
    bool standard = strcmp(path, "-") == 0;
    struct stat st;
    FILE *file = standard ? stdin : fopen(path, "rbe");
    size_t cap = 0;
    if (file == NULL || (fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode))) {
        int error = file == NULL ? errno : EISDIR;
        if (file != NULL && !standard) {
            fclose(file);
        }
        return file_fail(path, error);
    }
    while (!feof(file) && !ferror(file) && out->count <= BYTES_MAX) {
        out->data = prof_grow(out->data, out->count, &cap, 1);
        out->count += fread(out->data + out->count, 1, cap - out->count, file);
    }
    int error = ferror(file) ? errno : 0;
    if (!standard) {
        fclose(file);
    }
    if (error != 0) {
        return file_fail(path, error);
    }
    if (out->count > BYTES_MAX) {
        return cli_fail("profile", "%s is larger than 512 MiB: that is no profile", path);
    }
    return 0;
}

// ---- progress ----------------------------------------------------------------------------------

struct transfer {
    struct prof_bytes *out;
    size_t cap;
    bool too_large;
    bool says_why; // X-Go-Pprof: the body is a message for people
    unsigned seconds;
    double started;
    bool shown; // a bar stands on the terminal
};

static double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void bar_print(struct transfer *t, double passed)
{
    char bar[64];
    int columns = 30;
    double share = t->seconds == 0 ? 0 : passed / t->seconds;
    int full = share > 1 ? columns : (int)(share * columns);
    for (int i = 0; i < columns; i++) {
        bar[i] = i < full ? '=' : i == full ? '>' : ' ';
    }
    bar[columns] = '\0';
    if (t->out->count != 0) {
        fprintf(stderr, "\r\033[Kreceived %zu KiB", t->out->count / 1024);
    } else if (t->seconds == 0) {
        fprintf(stderr, "\r\033[Kwaiting for an answer, %.0f s", passed);
    } else if (passed >= t->seconds) {
        fprintf(stderr, "\r\033[K[%s] the profile is being written", bar);
    } else {
        fprintf(stderr, "\r\033[K[%s] %.0f of %u s", bar, passed, t->seconds);
    }
    fflush(stderr);
    t->shown = true;
}

static int progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    struct transfer *t = arg;
    (void)total, (void)now, (void)up_total, (void)up;
    double passed = now_seconds() - t->started;
    if (passed >= 1 || t->seconds > 1) {
        bar_print(t, passed);
    }
    return 0;
}

// ---- HTTP --------------------------------------------------------------------------------------

static size_t body_take(const char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t bytes = size * count;
    if (t->out->count + bytes > BYTES_MAX) {
        t->too_large = true;
        return 0;
    }
    while (t->cap - t->out->count < bytes) {
        t->out->data = prof_grow(t->out->data, t->cap, &t->cap, 1);
    }
    memcpy(t->out->data + t->out->count, data, bytes);
    t->out->count += bytes;
    return bytes;
}

static size_t header_take(const char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    static const char wanted[] = "x-go-pprof:";
    if (size * count >= sizeof(wanted) && strncasecmp(data, wanted, sizeof(wanted) - 1) == 0) {
        t->says_why = true;
    }
    return size * count;
}

// What stands before the user: the URL, or the socket.
static const char *place_name(const struct prof_source *source, const char *url)
{
    return source->place == PROF_UNIX ? source->path : url;
}

static int curl_fail(CURL *curl, CURLcode code, const struct prof_source *source, const char *url,
                     const char *detail)
{
    const char *place = place_name(source, url);
    long error = 0;
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &error);
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        if (error == ECONNREFUSED) {
            return cli_fail("profile", "%s: connection refused; nobody listens there", place);
        }
        if (error == EACCES || error == EPERM) {
            return cli_fail("profile", "%s: permission denied; ask as its user or as root", place);
        }
        if (error == ENOENT) {
            return cli_fail("profile", "there is no socket %s", place);
        }
        return cli_fail("profile", "%s: cannot connect%s%s", place, error != 0 ? ": " : "",
                        error != 0 ? strerror((int)error) : "");
    case CURLE_COULDNT_RESOLVE_HOST:
        return cli_fail("profile", "%s: there is no such host", place);
    case CURLE_OPERATION_TIMEDOUT:
        return cli_fail("profile", "%s: no answer in time", place);
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
        return cli_fail("profile", "%s: the connection was closed without an answer", place);
    case CURLE_PARTIAL_FILE:
        return cli_fail("profile", "%s: the answer was cut off", place);
    case CURLE_URL_MALFORMAT:
        return cli_fail("profile", "\"%s\" is not a URL", place);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return cli_fail("profile",
                        strstr(detail, "HTTP/0.9") != NULL
                            ? "%s: what listens there does not speak HTTP"
                            : "%s: only http, https and unix are known",
                        place);
    case CURLE_WEIRD_SERVER_REPLY:
        return cli_fail("profile", "%s: what listens there does not speak HTTP", place);
    default:
        return cli_fail("profile", "%s: %s", place,
                        detail[0] != '\0' ? detail : curl_easy_strerror(code));
    }
}

static int status_fail(const struct transfer *t, long status, const char *place, const char *kind)
{
    char text[256] = "";
    if (status == 404 && t->says_why && kind != NULL) {
        const char *nearest = prof_kind_route(kind) == NULL ? prof_kind_nearest(kind) : NULL;
        return cli_fail("profile", "%s: there is no profile \"%s\" there%s%s%s", place, kind,
                        nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
                        nearest != NULL ? "?" : "");
    }
    if (t->says_why) {
        size_t len = min_size(t->out->count, sizeof(text) - 1);
        memcpy(text, t->out->data != NULL ? (char *)t->out->data : "", len);
        text[strcspn(text, "\r\n")] = '\0';
        term_clean(text);
        return cli_fail("profile", "%s answers %ld: %s", place, status, text);
    }
    return cli_fail("profile", "%s answers %ld%s", place, status,
                    status == 404   ? "; are its profiles at /debug/pprof/?"
                    : status == 403 ? ": it does not answer you; ask as its user or as root"
                                    : "");
}

// The URL with kind and seconds.
static char *url_make(const struct prof_source *source, const struct prof_request *request)
{
    const char *route = request->kind != NULL ? prof_kind_route(request->kind) : "heap";
    char *url = prof_format("%s%s", source->url,
                            source->whole   ? ""
                            : route != NULL ? route
                                            : request->kind);
    if (request->seconds != 0) {
        char *longer = prof_format("%s%cseconds=%u", url, strchr(url, '?') != NULL ? '&' : '?',
                                   request->seconds);
        free(url);
        return longer;
    }
    return url;
}

// A redirection must not lead to files or other protocols.
#if LIBCURL_VERSION_NUM >= 0x075500
static void protocols_set(CURL *curl)
{
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
}
#else
static void protocols_set(CURL *curl)
{
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
}
#endif

static CURL *curl_make(const struct prof_source *source, const char *url, struct transfer *t)
{
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        exit(cli_fail("profile", "out of memory"));
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    protocols_set(curl);
    // What a process that was only looked at answers must not send us to others.
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, source->pid == 0 ? 1L : 0L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 3L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "ebb/" EBB_VERSION_TEXT);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)t->seconds + PATIENCE_SECONDS);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, header_take);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    if (source->place == PROF_UNIX) {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, source->path);
    }
    return curl;
}

static int http_fetch(const struct prof_source *source, const struct prof_request *request,
                      struct prof_bytes *out)
{
    char detail[CURL_ERROR_SIZE] = "";
    char *url = url_make(source, request);
    bool cpu = strstr(url, "/debug/pprof/profile") != NULL;
    struct transfer t = {.out = out, .started = now_seconds(), .seconds = request->seconds};
    t.seconds = t.seconds == 0 && cpu ? 30 : t.seconds;
    CURL *curl = curl_make(source, url, &t);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    if (isatty(STDERR_FILENO) == 1) {
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, progress);
        curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &t);
    }
    CURLcode code = curl_easy_perform(curl);
    long answer = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer);
    if (t.shown) {
        fputs("\r\033[K", stderr);
    }
    int status = 0;
    if (t.too_large) {
        status = cli_fail("profile", "%s: more than 512 MiB: that is no profile",
                          place_name(source, url));
    } else if (code != CURLE_OK) {
        status = curl_fail(curl, code, source, url, detail);
    } else if (answer != 200) {
        status = status_fail(&t, answer, place_name(source, url), request->kind);
    }
    curl_easy_cleanup(curl);
    free(url);
    return status;
}

bool prof_http_probe(const struct prof_source *source, bool with_host)
{
    struct prof_bytes body = {0};
    struct transfer t = {.out = &body};
    CURL *curl = curl_make(source, source->url, &t);
    struct curl_slist *headers = NULL;
    if (!with_host) {
        // A redis takes a Host line for an attack and writes it into its log.
        headers = curl_slist_append(NULL, "Host:");
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_0);
    }
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)PROBE_MS);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    long answer = 0;
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer);
    bool good = code == CURLE_OK && answer == 200 && body.count != 0 &&
                memmem(body.data, body.count, "heap", 4) != NULL &&
                memmem(body.data, body.count, "allocs", 6) != NULL;
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    free(body.data);
    return good;
}

int prof_fetch(const struct prof_source *source, const struct prof_request *request,
               struct prof_bytes *out)
{
    struct prof_source agent;
    *out = (struct prof_bytes){0};
    switch (source->place) {
    case PROF_FILE:
        return file_read(source->path, out);
    case PROF_PID: {
        int status = prof_find_agent(source->pid, &agent);
        return status != 0 ? status : http_fetch(&agent, request, out);
    }
    default:
        return http_fetch(source, request, out);
    }
}
