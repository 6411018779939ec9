// SPDX-License-Identifier: MIT
//
// A program that leaks at two places or keeps its processors busy in three functions, and writes
// its profiles when told. Knows nothing of Ebb but the names of two functions, which it looks up.
//
//   profiled heap FOLDER          writes FOLDER/before and FOLDER/after around the leaks
//   profiled cpu FOLDER SECONDS   writes FOLDER/cpu; says how much processor time each part used
//   profiled storm FOLDER SECONDS the same while it allocates, forks, and loads and unloads a
//   library
// Go  none
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "proglib.h"

#define BIG_COUNT 100000
#define BIG_BYTES 1000
#define SMALL_COUNT 100000
#define SMALL_BYTES 100

static int (*profile_write)(const char *name, int fd, int debug);
static int (*profile_cpu)(int fd, unsigned seconds);
static const char *folder;
static void *kept[BIG_COUNT + SMALL_COUNT];
static atomic_int over;

static int file_open(const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0, "%s cannot be opened", path);
    return fd;
}

static void heap_write(const char *name)
{
    int fd = file_open(name);
    int error = profile_write("heap", fd, 0);
    REQUIRE(error == 0, "ebb_profile_write: %d", error);
    close(fd);
}

// --- leaks ---

static __attribute__((noinline)) void *leak_big(void)
{
    void *block = malloc(BIG_BYTES); // leak of 100 MB
    memset(block, 1, BIG_BYTES);
    return block;
}

static __attribute__((noinline)) void *leak_small(void)
{
    void *block = calloc(1, SMALL_BYTES); // leak of 10 MB
    memset(block, 1, SMALL_BYTES);
    return block;
}

static __attribute__((noinline)) void *not_a_leak(void)
{
    void *block = malloc(5000);
    memset(block, 1, 5000);
    return block;
}

static void leaks(void)
{
    heap_write("before");
    for (size_t i = 0; i < BIG_COUNT; i++) {
        kept[i] = leak_big();
        free(not_a_leak());
    }
    for (size_t i = BIG_COUNT; i < BIG_COUNT + SMALL_COUNT; i++) {
        kept[i] = leak_small();
    }
    heap_write("after");
}

// --- processor time ---

static volatile uint64_t sink;

static __attribute__((noinline)) void burn_one(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++) {
        sink += i;
    }
}

static __attribute__((noinline)) void burn_two(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++) {
        sink ^= i;
    }
}

static double clock_seconds(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct burner {
    const char *name;
    void (*burn)(uint64_t turns);
    double seconds;
};

static void *burner_run(void *arg)
{
    struct burner *burner = arg;
    // The profile has begun when the second one gets its name.
    struct timespec late = {0, strcmp(burner->name, "two") == 0 ? 30000000 : 0};
    nanosleep(&late, NULL);
    pthread_setname_np(pthread_self(), burner->name);
    while (!over) {
        burner->burn(100000);
    }
    burner->seconds = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    return NULL;
}

// Sleeps all the time, and is never woken by the profiler.
static void *sleeper_run(void *arg)
{
    int *woken = arg;
    struct timespec left = {1000, 0};
    pthread_setname_np(pthread_self(), "sleeper");
    while (!over) {
        struct timespec piece = {0, 100000000};
        *woken += nanosleep(&piece, &left) != 0 && errno == EINTR;
    }
    return NULL;
}

static void *allocator_run(void *arg)
{
    uint64_t random = 88172645463325252u;
    void *blocks[1000] = {NULL};
    while (!over) {
        size_t i = rand_next(&random) % 1000;
        free(blocks[i]);
        blocks[i] = malloc(rand_next(&random) % 20000);
    }
    for (size_t i = 0; i < 1000; i++) {
        free(blocks[i]);
    }
    return arg;
}

static void *loader_run(void *arg)
{
    while (!over) {
        void *library = dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
        if (library != NULL) {
            dlclose(library);
        }
    }
    return arg;
}

static void *forker_run(void *arg)
{
    while (!over) {
        pid_t child = fork();
        if (child == 0) {
            free(malloc(100));
            _exit(0);
        }
        REQUIRE(child > 0, "fork");
        int status;
        REQUIRE(waitpid(child, &status, 0) == child && status == 0, "a child ended with %d",
                status);
    }
    return arg;
}

static void processor(unsigned seconds, int storm)
{
    struct burner burners[2] = {{"one", burn_one, 0}, {"two", burn_two, 0}};
    void *(*const others[])(void *) = {allocator_run, loader_run, forker_run};
    pthread_t threads[6];
    int woken = 0;
    size_t count = 0;
    for (size_t i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[count++], NULL, burner_run, &burners[i]) == 0, "thread");
    }
    REQUIRE(pthread_create(&threads[count++], NULL, sleeper_run, &woken) == 0, "thread");
    for (size_t i = 0; storm && i < 3; i++) {
        REQUIRE(pthread_create(&threads[count++], NULL, others[i], NULL) == 0, "thread");
    }
    int fd = file_open("cpu");
    double before = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    int error = 0;
    for (unsigned i = 0; i < (storm ? seconds : 1) && error == 0; i++) {
        REQUIRE(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0, "cpu");
        error = profile_cpu(fd, storm ? 1 : seconds);
        if (storm) {
            heap_write("after");
        }
    }
    double used = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
    REQUIRE(error == 0, "ebb_profile_cpu: %d", error);
    over = 1;
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("used %.3f woken %d\n", used, woken);
}

int main(int argc, char **argv)
{
    REQUIRE(argc >= 3, "usage: profiled heap|cpu|storm FOLDER [SECONDS]");
    folder = argv[2];
    *(void **)&profile_write = dlsym(RTLD_DEFAULT, "ebb_profile_write");
    *(void **)&profile_cpu = dlsym(RTLD_DEFAULT, "ebb_profile_cpu");
    REQUIRE(profile_write != NULL && profile_cpu != NULL, "the library is not there");
    if (strcmp(argv[1], "heap") == 0) {
        leaks();
    } else {
        REQUIRE(argc == 4, "how many seconds?");
        processor((unsigned)atoi(argv[3]), strcmp(argv[1], "storm") == 0);
    }
    return 0;
}
