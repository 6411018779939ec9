// SPDX-License-Identifier: MIT
//
// realloc-grow: four buffers grow in turn, each by a quarter, from 64 bytes to 4 MiB, as strings
// and vectors do; small blocks are allocated between the steps, so growing in place is not given.
// After each step the old contents are checked at the edges, and the new part is written.
//
// Go  none
#include "common/bench.h"

enum {
    REALLOC_GROW_BUFFERS = 4,
    REALLOC_GROW_NEIGHBOURS = 64,
    REALLOC_GROW_BYTES_MIN = 64,
    REALLOC_GROW_BYTES_MAX = 4 << 20,
};

struct realloc_buffer {
    unsigned char *bytes;
    size_t size;
    uint64_t seed;
};

static unsigned char realloc_buffer_byte(const struct realloc_buffer *buffer, size_t offset)
{
    return (unsigned char)((buffer->seed ^ offset) * 0x9e3779b97f4a7c15ULL >> 56);
}

// realloc_buffer_verify visits each step-th byte and the last one.
static void realloc_buffer_verify(const struct realloc_buffer *buffer, size_t step)
{
    for (size_t offset = 0; offset < buffer->size; offset += step) {
        if (buffer->bytes[offset] != realloc_buffer_byte(buffer, offset)) {
            bench_fail("realloc lost a byte");
        }
    }
    size_t last = buffer->size - 1;
    if (buffer->size > 0 && buffer->bytes[last] != realloc_buffer_byte(buffer, last)) {
        bench_fail("realloc lost the last byte");
    }
}

static void realloc_buffer_grow(struct realloc_buffer *buffer, size_t size, size_t step)
{
    unsigned char *bytes = realloc(buffer->bytes, size);
    if (bytes == NULL) {
        bench_fail("realloc returned NULL");
    }
    size_t old_size = buffer->size;
    buffer->bytes = bytes;
    if (old_size > 0) {
        realloc_buffer_verify(buffer, step);
    }
    size_t first = (old_size + step - 1) / step * step;
    for (size_t offset = first; offset < size; offset += step) {
        bytes[offset] = realloc_buffer_byte(buffer, offset);
    }
    // Offsets are multiples of step, except the last byte of each size passed through.
    bytes[size - 1] = realloc_buffer_byte(buffer, size - 1);
    buffer->size = size;
}

static uint64_t realloc_grow_round(struct bench_actor *actor, void **neighbours, size_t step,
                                   uint64_t round)
{
    struct realloc_buffer buffers[REALLOC_GROW_BUFFERS] = {{NULL, 0, 0}};
    uint64_t sum = 0;
    for (size_t size = REALLOC_GROW_BYTES_MIN; size <= REALLOC_GROW_BYTES_MAX; size += size / 4) {
        for (unsigned i = 0; i < REALLOC_GROW_BUFFERS; i++) {
            buffers[i].seed = round * REALLOC_GROW_BUFFERS + i;
            realloc_buffer_grow(&buffers[i], size + i * 8, step);
            actor->operation_count++;
            void **slot = &neighbours[bench_below(&actor->random_state, REALLOC_GROW_NEIGHBOURS)];
            if (*slot != NULL) {
                bench_drop(actor, *slot);
            }
            *slot = bench_make(actor, bench_size_log(&actor->random_state, 6, 14));
        }
    }
    for (unsigned i = 0; i < REALLOC_GROW_BUFFERS; i++) {
        realloc_buffer_verify(&buffers[i], step);
        sum += buffers[i].size * (buffers[i].seed + 1);
        free(buffers[i].bytes);
    }
    return sum;
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("realloc-grow", argc, argv, 1);
    struct bench_actor actor = bench_actor_make(&bench, 1);
    void *neighbours[REALLOC_GROW_NEIGHBOURS] = {NULL};
    uint64_t round_count = bench_pick(&bench, 1, 16, 200);
    size_t step = (size_t)bench_pick(&bench, 1, 512, 512);
    uint64_t sum = 0;
    bench_start(&bench);
    for (uint64_t round = 0; round < round_count; round++) {
        sum += realloc_grow_round(&actor, neighbours, step, round);
    }
    bench_stop(&bench);
    for (unsigned i = 0; i < REALLOC_GROW_NEIGHBOURS; i++) {
        if (neighbours[i] != NULL) {
            bench_drop(&actor, neighbours[i]);
        }
    }
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(&actor, 1, &operation_count);
    return bench_close(&bench, operation_count, checksum ^ sum);
}
