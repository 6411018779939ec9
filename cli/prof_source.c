// SPDX-License-Identifier: MIT
//
// What a word on the command line means: a file, a URL, a socket or a process; names of kinds.
//
// Go  github.com/google/pprof internal/driver/fetch.go adjustURL. Unlike Go: a bare host:port means
//     the heap, unix: means a socket, a number a process.
#include "prof.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    const char *route;
} kinds[] = {
    {"heap", "heap"},           {"allocs", "allocs"},   {"cpu", "profile"},
    {"pins", "pins"},           {"growth", "growth"},   {"mutex", "mutex"},
    {"block", "block"},         {"profile", "profile"}, {"threadcreate", "threadcreate"},
    {"goroutine", "goroutine"},
};

const char *prof_kind_route(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return kinds[i].route;
        }
    }
    return NULL;
}

const char *prof_kind_nearest(const char *name)
{
    const char *names[ARRAY_COUNT(kinds)];
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        names[i] = kinds[i].name;
    }
    return cli_nearest(name, names, ARRAY_COUNT(names));
}

static bool is_number(const char *text)
{
    size_t len = strspn(text, "0123456789");
    return len != 0 && text[len] == '\0' && len < 10 && atoi(text) > 0;
}

// host:port, :port, [::1]:port, each perhaps with a path.
static bool is_host_port(const char *text)
{
    size_t host = strcspn(text, "/");
    for (size_t i = host; i-- > 0;) {
        if (text[i] == ':') {
            return i + 1 < host;
        }
        if (!isdigit((unsigned char)text[i])) {
            return false;
        }
    }
    return false;
}

// The path of a URL: what follows host and port.
static const char *url_path(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    return host + strcspn(host, "/?#");
}

// Is the path only the way to the profiles, or a profile's own?
static bool is_whole(const char *path)
{
    static const char *const bases[] = {"", "/", "/debug/pprof", "/debug/pprof/"};
    for (size_t i = 0; i < ARRAY_COUNT(bases); i++) {
        if (strcmp(path, bases[i]) == 0) {
            return false;
        }
    }
    return true;
}

static struct prof_source url_source(enum prof_place place, char *url)
{
    struct prof_source source = {.place = place, .url = url};
    const char *path = url_path(url);
    source.whole = is_whole(path);
    if (!source.whole) {
        source.url = prof_format("%.*s/debug/pprof/", (int)(path - url), url);
        free(url);
    }
    return source;
}

struct prof_source prof_source_parse(const char *text)
{
    if (is_number(text)) {
        return (struct prof_source){.place = PROF_PID, .pid = atoi(text)};
    }
    if (strncmp(text, "unix:", 5) == 0) {
        const char *path = text + 5 + (strncmp(text + 5, "//", 2) == 0 ? 2 : 0);
        struct prof_source source = url_source(PROF_UNIX, prof_format("http://localhost"));
        source.path = prof_format("%s", path);
        return source;
    }
    if (strstr(text, "://") != NULL) {
        return url_source(PROF_HTTP, prof_format("%s", text));
    }
    if (access(text, F_OK) != 0 && is_host_port(text)) {
        return url_source(PROF_HTTP,
                          prof_format("http://%s%s", text[0] == ':' ? "localhost" : "", text));
    }
    return (struct prof_source){.place = PROF_FILE, .path = prof_format("%s", text)};
}
