// SPDX-License-Identifier: MIT
//
// Runs a fuzz target without libFuzzer: each file of a folder as it is, then changed at random for
// some seconds. fuzz_main FOLDER SECONDS; EBB_SEED replays. What goes wrong ends the program.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rand.h"
#include "fuzz.h"

enum { INPUT_BYTES = 8192, INPUTS = 256 };

static struct input {
    uint8_t bytes[INPUT_BYTES];
    size_t size;
} inputs[INPUTS], work;

static size_t input_count;

static void folder_read(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        FILE *file = entry->d_name[0] != '.' && input_count < INPUTS ? fopen(path, "rb") : NULL;
        if (file != NULL) {
            struct input *input = &inputs[input_count++];
            input->size = fread(input->bytes, 1, INPUT_BYTES, file);
            fclose(file);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

// Changes, cuts, doubles or joins.
static void change(struct rand *rand)
{
    const struct input *other = &inputs[rand_below(rand, input_count)];
    size_t at = rand_below(rand, work.size + 1);
    switch (rand_below(rand, 5)) {
    case 0:
        if (at < work.size) {
            work.bytes[at] = (uint8_t)rand_next(rand);
        }
        break;
    case 1:
        work.size = at;
        break;
    case 2: {
        size_t count = rand_below(rand, work.size - at + 1);
        count = count < INPUT_BYTES - work.size ? count : INPUT_BYTES - work.size;
        memmove(work.bytes + at + count, work.bytes + at, work.size - at);
        work.size += count;
        break;
    }
    case 3: {
        size_t from = rand_below(rand, other->size + 1);
        size_t count = rand_below(rand, other->size - from + 1);
        count = count < INPUT_BYTES - at ? count : INPUT_BYTES - at;
        memcpy(work.bytes + at, other->bytes + from, count);
        work.size = work.size > at + count ? work.size : at + count;
        break;
    }
    default:
        if (at < work.size) {
            work.bytes[at] ^= (uint8_t)(1u << rand_below(rand, 8));
        }
    }
}

int main(int argc, char **argv)
{
    const char *seed_text = getenv("EBB_SEED");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL);
    struct rand rand;
    if (argc != 3) {
        fputs("fuzz_main FOLDER SECONDS\n", stderr);
        return 2;
    }
    printf("EBB_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    rand_seed(&rand, seed);
    folder_read(argv[1]);
    if (input_count == 0) {
        fprintf(stderr, "no inputs in %s\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < input_count; i++) {
        LLVMFuzzerTestOneInput(inputs[i].bytes, inputs[i].size);
    }
    unsigned long long runs = 0;
    for (time_t end = time(NULL) + atoi(argv[2]); time(NULL) < end;) {
        for (int turn = 0; turn < 100; turn++, runs++) {
            work = inputs[rand_below(&rand, input_count)];
            for (uint64_t changes = rand_below(&rand, 6) + 1; changes > 0; changes--) {
                change(&rand);
            }
            LLVMFuzzerTestOneInput(work.bytes, work.size);
        }
    }
    printf("%zu inputs, %llu runs\n", input_count, runs);
    return 0;
}
