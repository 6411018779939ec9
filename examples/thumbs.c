// SPDX-License-Identifier: MIT
//
// thumbs: a service that makes thumbnails and keeps the last of them in a cache. It can be told to
// leak and to peak, so that one can see how that looks from outside. docs/GUIDE.md, "From the alarm
// to the cause", walks through it.
//
//     cc -Og -g -pthread -o thumbs examples/thumbs.c
//     ebb run --set http=127.0.0.1:8090 --set gops=1 ./thumbs
//
// The service itself listens at 127.0.0.1:8080 (--port N: elsewhere; 0: any, told on stderr):
//
//     curl http://127.0.0.1:8080/                        what there is, and numbers
//     curl http://127.0.0.1:8080/thumb?id=7 >7.bmp       its work
//     curl http://127.0.0.1:8080/leak?mb=60              requests forget to free their context
//     curl http://127.0.0.1:8080/leak?mb=60\&where=cache the cache forgets its limit
//     curl http://127.0.0.1:8080/stop-leak
//     curl http://127.0.0.1:8080/peak?mb=200             a report: 200 MB, and 1 % of it stays
//     curl http://127.0.0.1:8080/file?mb=200             neither: a file, which is page cache
//
// Model
//   visitor  a thread that asks for thumbnails, some hundred times a second (--rate N) with its
//            fellows; so there is always something to see
//   context  what belongs to one request, freed at its end
//   catalog  what images there are: title and tags of each, read at the start
//   cache    thumbnails by number, the oldest go when there are more than CACHE_BYTES
//   report   many small rows, all in memory for some seconds; then all go but one in a hundred
//   Sums are in bytes; MB are 1,000,000 of them, as everybody but the kernel counts.
//
// Locking
//   cache_lock for the cache; leaks and counters are atomic; a report belongs to its thread.
//
// Why this way
//   -Og rather than -O2, so that every function stays one and stacks read as the text does.
//   Nothing of Ebb is needed to compile it: the function for labels is a weak name, which is
//   nobody's where Ebb is not loaded. On glibc it does the same.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MB = 1000 * 1000,
    VISITOR_COUNT = 3,
    IMAGE_SIDE = 256, // pixels, of three bytes
    THUMB_SIDE = IMAGE_SIDE / 2,
    THUMB_HEAD_BYTES = 54, // of a BMP file
    THUMB_BYTES = THUMB_HEAD_BYTES + THUMB_SIDE * THUMB_SIDE * 3,
    IMAGE_COUNT = 20000,
    POPULAR_COUNT = 1000, // the ones that visitors ask for
    TAG_COUNT = 64,
    IMAGE_TAGS = 4, // of each image
    BODY_BYTES = 60000,
    CACHE_BYTES = 16 * MB,
    CACHE_BUCKETS = 4096,
    REPORT_HOLD_SECONDS = 5,
    ANSWER_BYTES = 2048,
};

static atomic_long leak_context_bytes; // still to be leaked
static atomic_long leak_cache_bytes;
static atomic_long leaked_bytes;
static atomic_ulong request_count;
static atomic_ulong report_kept_bytes;
static atomic_ulong file_bytes;
static unsigned visitor_pause_us = 1000000 * VISITOR_COUNT / 200;

// --- labels: which part of the service memory and time belong to ---

int ebb_label_set(const char *key, const char *value) __attribute__((weak));
static _Thread_local const char *part_now;

// part_enter says what the thread does from now on; returns what it did before.
static const char *part_enter(const char *part)
{
    const char *before = part_now;
    part_now = part;
    if (ebb_label_set) {
        ebb_label_set("part", part);
    }
    return before;
}

static void *need(void *memory)
{
    if (!memory) {
        fputs("thumbs: no memory\n", stderr);
        exit(1);
    }
    return memory;
}

// Numbers that need not be good, only differ.
static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

// --- the catalog ---

struct image {
    char *title;
    uint8_t tags[IMAGE_TAGS];
};

struct tag {
    uint32_t *ids; // of the images that have it
    size_t count;
    size_t room;
};

static struct image *catalog_images;
static struct tag catalog_tags[TAG_COUNT];

static char *title_make(uint32_t *state)
{
    size_t length = 30 + random_next(state) % 200;
    char *title = need(malloc(length + 1));
    for (size_t i = 0; i < length; i++) {
        title[i] = (char)('a' + random_next(state) % 26);
    }
    title[length] = '\0';
    return title;
}

static void tag_add(struct tag *tag, uint32_t id)
{
    if (tag->count == tag->room) {
        tag->room = tag->room ? 2 * tag->room : 64;
        tag->ids = need(realloc(tag->ids, tag->room * sizeof *tag->ids));
    }
    tag->ids[tag->count++] = id;
}

static void catalog_add(uint32_t id, uint32_t *state)
{
    struct image *image = &catalog_images[id];
    image->title = title_make(state);
    for (int i = 0; i < IMAGE_TAGS; i++) {
        image->tags[i] = (uint8_t)(random_next(state) % TAG_COUNT);
        tag_add(&catalog_tags[image->tags[i]], id);
    }
}

// catalog_load stands for reading a file with a line for each image.
static void catalog_load(void)
{
    const char *before = part_enter("catalog");
    uint32_t state = 2;
    catalog_images = need(calloc(IMAGE_COUNT, sizeof *catalog_images));
    for (uint32_t id = 0; id < IMAGE_COUNT; id++) {
        catalog_add(id, &state);
    }
    part_enter(before);
}

// --- images ---

// image_load stands for reading a file and unpacking it.
static uint8_t *image_load(uint32_t id)
{
    uint8_t *pixels = need(malloc(IMAGE_SIDE * IMAGE_SIDE * 3));
    uint32_t state = id;
    uint32_t hue = random_next(&state);
    uint8_t *at = pixels;
    for (uint32_t y = 0; y < IMAGE_SIDE; y++) {
        for (uint32_t x = 0; x < IMAGE_SIDE; x++) {
            *at++ = (uint8_t)(x * y / 256 + hue);
            *at++ = (uint8_t)((x ^ y) + (hue >> 8));
            *at++ = (uint8_t)(y + (random_next(&state) & 15));
        }
    }
    return pixels;
}

// image_scale halves an image: every pixel is the mean of four. Writes THUMB_SIDE rows.
static void image_scale(const uint8_t *pixels, uint8_t *out)
{
    const size_t row = (size_t)IMAGE_SIDE * 3;
    for (size_t y = 0; y < THUMB_SIDE; y++) {
        for (size_t x = 0; x < THUMB_SIDE; x++) {
            const uint8_t *at = pixels + 2 * y * row + 6 * x;
            for (size_t color = 0; color < 3; color++, at++) {
                *out++ = (uint8_t)((at[0] + at[3] + at[row] + at[row + 3]) / 4);
            }
        }
    }
}

static void put_le32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

// thumb_make returns THUMB_BYTES, a BMP file.
static uint8_t *thumb_make(uint32_t id)
{
    uint8_t *pixels = image_load(id);
    uint8_t *thumb = need(calloc(1, THUMB_BYTES));
    memcpy(thumb, "BM", 2);
    put_le32(thumb + 2, THUMB_BYTES);
    put_le32(thumb + 10, THUMB_HEAD_BYTES);
    put_le32(thumb + 14, 40);
    put_le32(thumb + 18, THUMB_SIDE);
    put_le32(thumb + 22, THUMB_SIDE);
    put_le32(thumb + 26, 1 | 24 << 16);
    image_scale(pixels, thumb + THUMB_HEAD_BYTES);
    free(pixels);
    return thumb;
}

// --- the cache ---

struct cached {
    uint32_t id;
    uint8_t *thumb;
    struct cached *chain; // of the bucket
    struct cached *newer;
};

static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cached *cache_bucket[CACHE_BUCKETS];
static struct cached *cache_oldest;
static struct cached *cache_newest;
static size_t cache_bytes;
static size_t cache_limit_bytes = CACHE_BYTES;

// cache_get copies a thumbnail into out, if it is there.
static bool cache_get(uint32_t id, uint8_t *out)
{
    pthread_mutex_lock(&cache_lock);
    struct cached *entry = cache_bucket[id % CACHE_BUCKETS];
    while (entry && entry->id != id) {
        entry = entry->chain;
    }
    if (entry) {
        memcpy(out, entry->thumb, THUMB_BYTES);
    }
    pthread_mutex_unlock(&cache_lock);
    return entry != NULL;
}

static void cache_drop_oldest(void)
{
    struct cached *entry = cache_oldest;
    struct cached **at = &cache_bucket[entry->id % CACHE_BUCKETS];
    while (*at != entry) {
        at = &(*at)->chain;
    }
    *at = entry->chain;
    cache_oldest = entry->newer;
    if (!cache_oldest) {
        cache_newest = NULL;
    }
    cache_bytes -= THUMB_BYTES;
    free(entry->thumb);
    free(entry);
}

// cache_put stores a copy.
static void cache_put(uint32_t id, const uint8_t *thumb)
{
    const char *before = part_enter("cache");
    struct cached *entry = need(calloc(1, sizeof *entry));
    entry->id = id;
    entry->thumb = need(malloc(THUMB_BYTES));
    memcpy(entry->thumb, thumb, THUMB_BYTES);
    pthread_mutex_lock(&cache_lock);
    entry->chain = cache_bucket[id % CACHE_BUCKETS];
    cache_bucket[id % CACHE_BUCKETS] = entry;
    if (cache_newest) {
        cache_newest->newer = entry;
    } else {
        cache_oldest = entry;
    }
    cache_newest = entry;
    cache_bytes += THUMB_BYTES;
    if (atomic_load(&leak_cache_bytes) > 0) {
        // The fault: room is made by raising the limit.
        atomic_fetch_sub(&leak_cache_bytes, THUMB_BYTES);
        atomic_fetch_add(&leaked_bytes, THUMB_BYTES);
        cache_limit_bytes += THUMB_BYTES;
    }
    while (cache_bytes > cache_limit_bytes) {
        cache_drop_oldest();
    }
    pthread_mutex_unlock(&cache_lock);
    part_enter(before);
}

// --- requests ---

struct context {
    uint32_t id;
    size_t body_bytes;
    uint8_t body[BODY_BYTES]; // of the answer
};

static struct context *context_new(uint32_t id)
{
    struct context *context = need(malloc(sizeof *context));
    context->id = id;
    context->body_bytes = 0;
    return context;
}

static void context_free(struct context *context)
{
    if (atomic_load(&leak_context_bytes) > 0) {
        // The fault: an early return that forgets.
        atomic_fetch_sub(&leak_context_bytes, (long)sizeof *context);
        atomic_fetch_add(&leaked_bytes, (long)sizeof *context);
        return;
    }
    free(context);
}

// request_thumb answers one request: the body is in the context, which is the caller's.
static struct context *request_thumb(uint32_t id)
{
    struct context *context = context_new(id);
    if (!cache_get(id, context->body)) {
        const char *before = part_enter("images");
        uint8_t *thumb = thumb_make(id);
        part_enter(before);
        cache_put(id, thumb);
        memcpy(context->body, thumb, THUMB_BYTES);
        free(thumb);
    }
    context->body_bytes = THUMB_BYTES;
    atomic_fetch_add(&request_count, 1);
    return context;
}

static void *visitor_run(void *argument)
{
    uint32_t state = (uint32_t)(uintptr_t)argument;
    prctl(PR_SET_NAME, "visitor");
    part_enter("requests");
    for (;;) {
        uint32_t id = random_next(&state) % POPULAR_COUNT;
        if (atomic_load(&leak_cache_bytes) > 0) {
            id = random_next(&state); // somebody asks for what nobody asked before
        }
        struct context *context = request_thumb(id);
        context_free(context);
        usleep(visitor_pause_us);
    }
    return NULL;
}

// --- the report ---

struct row {
    struct row *next;
    uint32_t id;
    uint32_t bytes;
    char text[];
};

static struct row *report_archive;

static struct row *report_add_row(struct row *rows, uint32_t *state, size_t *bytes)
{
    uint32_t size = (uint32_t)sizeof(struct row) + random_next(state) % 1000;
    struct row *row = need(malloc(size));
    memset(row, 'r', size);
    row->next = rows;
    row->id = random_next(state);
    row->bytes = size;
    *bytes += size;
    return row;
}

static struct row *report_collect(size_t wanted_bytes)
{
    struct row *rows = NULL;
    uint32_t state = 1;
    for (size_t bytes = 0; bytes < wanted_bytes;) {
        rows = report_add_row(rows, &state, &bytes);
    }
    return rows;
}

// report_finish frees the rows but for one in a hundred, which the archive keeps.
static void report_finish(struct row *rows)
{
    for (size_t i = 0; rows; i++) {
        struct row *row = rows;
        rows = row->next;
        if (row->id % 100 == 0) {
            row->next = report_archive;
            report_archive = row;
            atomic_fetch_add(&report_kept_bytes, row->bytes);
        } else {
            free(row);
        }
    }
}

static void *report_run(void *argument)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    part_enter("report");
    pthread_mutex_lock(&one_at_a_time);
    struct row *rows = report_collect((size_t)(uintptr_t)argument);
    sleep(REPORT_HOLD_SECONDS);
    report_finish(rows);
    pthread_mutex_unlock(&one_at_a_time);
    return NULL;
}

// file_write makes a file in the present folder that is gone when the service is. Its pages are the
// kernel's, which counts them for the container too, and takes them back when it wants.
static bool file_write(size_t wanted_bytes)
{
    static char block[MB / 10];
    char name[] = "thumbs-XXXXXX";
    int file = mkstemp(name);
    if (file < 0) {
        return false;
    }
    unlink(name);
    for (size_t bytes = 0; bytes < wanted_bytes; bytes += sizeof block) {
        if (write(file, block, sizeof block) != (ssize_t)sizeof block) {
            close(file);
            return false;
        }
    }
    atomic_fetch_add(&file_bytes, wanted_bytes);
    return true; // it stays open
}

// --- HTTP ---

static void send_all(int client, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t sent = send(client, at, bytes, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        at += sent;
        bytes -= (size_t)sent;
    }
}

static void answer(int client, const char *status, const char *kind, const void *body, size_t bytes)
{
    char head[256];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                          "Connection: close\r\n\r\n",
                          status, kind, bytes);
    send_all(client, head, (size_t)length);
    send_all(client, body, bytes);
}

__attribute__((format(printf, 3, 4))) static void answer_text(int client, const char *status,
                                                              const char *format, ...)
{
    char text[ANSWER_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    answer(client, status, "text/plain", text, (size_t)length);
}

static void answer_help(int client)
{
    pthread_mutex_lock(&cache_lock);
    size_t cached_bytes = cache_bytes;
    pthread_mutex_unlock(&cache_lock);
    answer_text(
        client, "200 OK",
        "/thumb?id=N            a thumbnail\n"
        "/leak?mb=N             requests forget to free N MB; &where=cache: the cache grows\n"
        "/stop-leak             they forget no more\n"
        "/peak?mb=N             a report: N MB for %d seconds, 1 %% of it stays\n"
        "/file?mb=N             writes a file, which is page cache and not ours\n"
        "\n"
        "requests  %lu\ncache MB  %zu\nleaked MB %ld\nkept of reports MB %lu\n"
        "file MB   %lu\n",
        REPORT_HOLD_SECONDS, atomic_load(&request_count), cached_bytes / MB,
        atomic_load(&leaked_bytes) / MB, atomic_load(&report_kept_bytes) / MB,
        atomic_load(&file_bytes) / MB);
}

// query_number finds a number of the query string: id=, mb=. False if it is not there.
static bool query_number(const char *query, const char *key, unsigned long most, unsigned long *out)
{
    const char *at = strstr(query, key);
    char *end;
    if (!at || at[strlen(key)] < '0' || at[strlen(key)] > '9') {
        return false;
    }
    errno = 0;
    *out = strtoul(at + strlen(key), &end, 10);
    return errno == 0 && *out <= most && (*end == '\0' || *end == '&');
}

static void answer_order(int client, const char *path, const char *query)
{
    unsigned long mb;
    if (!query_number(query, "mb=", 100000, &mb) || mb == 0) {
        answer_text(client, "400 Bad Request", "mb= wants a number from 1 to 100000\n");
        return;
    }
    if (strcmp(path, "/leak") == 0) {
        bool cache = strstr(query, "where=cache") != NULL;
        atomic_store(cache ? &leak_cache_bytes : &leak_context_bytes, (long)mb * MB);
        answer_text(client, "200 OK", "leaking %lu MB, at %s\n", mb,
                    cache ? "cache_put" : "context_new");
    } else if (strcmp(path, "/peak") == 0) {
        pthread_t thread;
        void *bytes = (void *)(uintptr_t)(mb * MB);
        bool started = pthread_create(&thread, NULL, report_run, bytes) == 0;
        if (started) {
            pthread_detach(thread);
        }
        answer_text(client, started ? "200 OK" : "503 Service Unavailable", "%s\n",
                    started ? "a report is being made" : "no thread for a report");
    } else {
        bool done = file_write(mb * MB);
        answer_text(client, done ? "200 OK" : "507 Insufficient Storage", "%s\n",
                    done ? "written" : "the file could not be written");
    }
}

static void answer_thumb(int client, const char *query)
{
    unsigned long id;
    if (!query_number(query, "id=", UINT32_MAX, &id)) {
        answer_text(client, "400 Bad Request", "id= wants a number\n");
        return;
    }
    struct context *context = request_thumb((uint32_t)id);
    answer(client, "200 OK", "image/bmp", context->body, context->body_bytes);
    context_free(context);
}

static void client_serve(int client)
{
    char text[ANSWER_BYTES];
    char path[256];
    ssize_t length = recv(client, text, sizeof text - 1, 0);
    if (length <= 0) {
        return;
    }
    text[length] = '\0';
    if (sscanf(text, "%*[A-Z] %255s", path) != 1) {
        answer_text(client, "400 Bad Request", "this is no HTTP request\n");
        return;
    }
    char *query = strchr(path, '?');
    if (query) {
        *query++ = '\0';
    } else {
        query = path + strlen(path);
    }
    if (strcmp(path, "/") == 0) {
        answer_help(client);
    } else if (strcmp(path, "/thumb") == 0) {
        answer_thumb(client, query);
    } else if (strcmp(path, "/leak") == 0 || strcmp(path, "/peak") == 0 ||
               strcmp(path, "/file") == 0) {
        answer_order(client, path, query);
    } else if (strcmp(path, "/stop-leak") == 0) {
        atomic_store(&leak_context_bytes, 0);
        atomic_store(&leak_cache_bytes, 0);
        answer_text(client, "200 OK", "leaks no more\n");
    } else {
        answer_text(client, "404 Not Found", "not here; / says what is\n");
    }
}

// listen_at returns a socket that listens on loopback; the program ends if that cannot be had.
static int listen_at(unsigned long port)
{
    struct sockaddr_in where = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t length = sizeof where;
    int one = 1;
    int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (door < 0 || setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(door, (struct sockaddr *)&where, sizeof where) < 0 || listen(door, 64) < 0 ||
        getsockname(door, (struct sockaddr *)&where, &length) < 0) {
        fprintf(stderr, "thumbs: cannot listen at 127.0.0.1:%lu: %s\n", port, strerror(errno));
        exit(1);
    }
    fprintf(stderr, "thumbs: http://127.0.0.1:%d/ says what I can do\n", ntohs(where.sin_port));
    return door;
}

static void leave(int number)
{
    (void)number;
    _exit(0);
}

// option_number reads --NAME N; the program ends if it is something else.
static unsigned long option_number(const char *value, unsigned long least, unsigned long most)
{
    char *end = NULL;
    unsigned long number = value ? strtoul(value, &end, 10) : 0;
    if (!value || value[0] < '0' || value[0] > '9' || *end || number < least || number > most) {
        fprintf(stderr, "thumbs: %s should be a number from %lu to %lu\n",
                value ? value : "what follows an option", least, most);
        exit(2);
    }
    return number;
}

int main(int argc, char **argv)
{
    unsigned long port = 8080;
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0) {
            port = option_number(argv[i + 1], 0, 65535);
        } else if (strcmp(argv[i], "--rate") == 0) {
            unsigned long rate = option_number(argv[i + 1], 1, 10000);
            visitor_pause_us = (unsigned)(1000000 * VISITOR_COUNT / rate);
        } else {
            fputs("usage: thumbs [--port N] [--rate REQUESTS_PER_SECOND]\n", stderr);
            return 2;
        }
    }
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    int door = listen_at(port);
    part_enter("requests");
    catalog_load();
    for (uintptr_t i = 1; i <= VISITOR_COUNT; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, visitor_run, (void *)i) != 0) {
            fputs("thumbs: no thread for a visitor\n", stderr);
            return 1;
        }
    }
    for (;;) {
        int client = accept(door, NULL, NULL);
        if (client >= 0) {
            struct timeval patience = {.tv_sec = 2};
            setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
            client_serve(client);
            close(client);
        }
    }
}
