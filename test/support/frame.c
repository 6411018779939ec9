// SPDX-License-Identifier: MIT
//
// Test frame: seeds, tiers and leftovers, read from the environment and from /proc/self.
//
// Go  none
#include "frame.h"

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct frame_counts {
    int fd_count;
    int mapping_count;
    int thread_count;
};

static struct frame_counts frame_before;
static int frame_mappings_allowed = 16;
static uint64_t frame_seed_value;
static bool frame_seed_known;

enum frame_tier frame_tier(void)
{
    const char *tier = getenv("EBB_TEST_TIER");
    if (tier != NULL && strcmp(tier, "quick") == 0) {
        return FRAME_QUICK;
    }
    if (tier != NULL && strcmp(tier, "long") == 0) {
        return FRAME_LONG;
    }
    return FRAME_COMMIT;
}

unsigned frame_rounds(unsigned n)
{
    switch (frame_tier()) {
    case FRAME_QUICK:
        return n / 4 > 0 ? n / 4 : 1;
    case FRAME_LONG:
        return n * 10;
    case FRAME_COMMIT:
        break;
    }
    return n;
}

uint64_t frame_seed(void)
{
    if (frame_seed_known) {
        return frame_seed_value;
    }
    const char *given = getenv("EBB_SEED");
    if (given != NULL && *given != '\0') {
        frame_seed_value = strtoull(given, NULL, 0);
    } else {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t mix = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        mix ^= (uint64_t)getpid() << 40;
        frame_seed_value = frame_random(&mix) >> 16;
    }
    frame_seed_known = true;
    fprintf(stderr, "seed %llu (EBB_SEED=%llu replays it)\n", (unsigned long long)frame_seed_value,
            (unsigned long long)frame_seed_value);
    return frame_seed_value;
}

uint64_t frame_random(uint64_t *state)
{
    // splitmix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators".
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t frame_below(uint64_t *state, uint64_t limit)
{
    // The bias of the remainder is at most limit / 2^64: nothing a test could notice.
    return frame_random(state) % limit;
}

// frame_entries returns the number of entries of a directory of /proc, "." and ".." left out; -1 if
// /proc is not there.
static int frame_entries(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return -1;
    }
    int count = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        count += entry->d_name[0] != '.';
    }
    closedir(dir);
    return count;
}

static int frame_lines(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return -1;
    }
    int count = 0;
    for (int c = fgetc(file); c != EOF; c = fgetc(file)) {
        count += c == '\n';
    }
    fclose(file);
    return count;
}

static struct frame_counts frame_counts_read(void)
{
    struct frame_counts counts = {
        .fd_count = frame_entries("/proc/self/fd"),
        .mapping_count = frame_lines("/proc/self/maps"),
        .thread_count = frame_entries("/proc/self/task"),
    };
    return counts;
}

void frame_begin(void)
{
    frame_before = frame_counts_read();
}

bool frame_clean(char *text, size_t text_bytes)
{
    struct frame_counts after = frame_counts_read();
    for (int i = 0; i < 100 && after.thread_count > frame_before.thread_count; i++) {
        struct timespec pause = {.tv_nsec = 10000000};
        nanosleep(&pause, NULL);
        after = frame_counts_read();
    }
    int fds = after.fd_count - frame_before.fd_count;
    int mappings = after.mapping_count - frame_before.mapping_count;
    int threads = after.thread_count - frame_before.thread_count;
    if (fds <= 0 && threads <= 0 && mappings <= frame_mappings_allowed) {
        return true;
    }
    snprintf(text, text_bytes,
             "left behind: %d descriptors, %d threads, %d mappings (%d mappings are allowed, "
             "frame_allow_mappings raises it)",
             fds, threads, mappings, frame_mappings_allowed);
    return false;
}

void frame_allow_mappings(int count)
{
    frame_mappings_allowed = count;
}

bool frame_forbid(long number, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

void frame_failed(const char *file, int line, const char *func, const char *cond)
{
    fprintf(stderr, "%s:%d: %s: failed: %s\n", file, line, func, cond);
    if (frame_seed_known) {
        fprintf(stderr, "EBB_SEED=%llu replays it\n", (unsigned long long)frame_seed_value);
    }
    fflush(NULL);
    _exit(1);
}

void frame_skip(const char *reason)
{
    printf("skipped: %s\n", reason);
    fflush(NULL);
    _exit(77);
}
