// SPDX-License-Identifier: MIT
//
// espresso: covers of a Boolean function as sets of cubes, complemented by recursion over the
// variables, as two-level logic minimisers do. Each cube is a block of 16 bytes, each set an array
// that grows by realloc; both live for one level of the recursion; one thread.
//
// Model
//   A cube has two bits per variable: bit 0 = may be 0, bit 1 = may be 1; 3 = does not matter.
//   A cover is the union of its cubes.
//   Always:  each point of the space lies in a cover or in its complement, never in both; checked
//            on random points for every function. A lost byte of a cube breaks it.
//
// Go  none
#include "common/bench.h"

enum {
    ESPRESSO_VARIABLES = 20,
    ESPRESSO_CUBES = 14,
    ESPRESSO_LITERALS = 6,
    ESPRESSO_POINTS = 64,
    // How far apart in their arrays two cubes may be to be compared: comparing all pairs would
    // leave 15 % of the time to the heap, this leaves about half.
    ESPRESSO_WINDOW = 2,
};

static const uint64_t espresso_universe = (1ULL << (2 * ESPRESSO_VARIABLES)) - 1;

struct cube {
    uint64_t bits;
    uint64_t serial;
};

struct cover {
    struct cube **cubes;
    size_t count;
    size_t capacity;
};

static uint64_t espresso_cube_count;

static void cover_add(struct cover *cover, uint64_t bits)
{
    if (cover->count == cover->capacity) {
        cover->capacity = cover->capacity + cover->capacity / 2 + 2;
        cover->cubes = realloc(cover->cubes, cover->capacity * sizeof *cover->cubes);
    }
    struct cube *cube = malloc(sizeof *cube);
    if (cover->cubes == NULL || cube == NULL) {
        bench_fail("malloc returned NULL");
    }
    cube->bits = bits;
    cube->serial = espresso_cube_count++;
    cover->cubes[cover->count++] = cube;
}

static void cover_free(struct cover *cover)
{
    for (size_t i = 0; i < cover->count; i++) {
        free(cover->cubes[i]);
    }
    free(cover->cubes);
    *cover = (struct cover){NULL, 0, 0};
}

// A cube is empty if some variable may be neither 0 nor 1.
static int cube_is_empty(uint64_t bits)
{
    const uint64_t low = 0x5555555555555555ULL & espresso_universe;
    return ((bits | bits >> 1) & low) != low;
}

// cover_cofactor is the cover seen from inside the half space where variable has the value.
static struct cover cover_cofactor(const struct cover *cover, unsigned variable, unsigned value)
{
    struct cover result = {NULL, 0, 0};
    uint64_t half = 1ULL << (2 * variable + value);
    for (size_t i = 0; i < cover->count; i++) {
        if ((cover->cubes[i]->bits & half) != 0) {
            cover_add(&result, cover->cubes[i]->bits | 3ULL << (2 * variable));
        }
    }
    return result;
}

static size_t window_start(size_t at)
{
    return at < ESPRESSO_WINDOW ? 0 : at - ESPRESSO_WINDOW;
}

static size_t window_end(size_t at, size_t count)
{
    return at + ESPRESSO_WINDOW + 1 < count ? at + ESPRESSO_WINDOW + 1 : count;
}

// cover_absorb drops each cube that a near one contains; of equal cubes one stays.
static void cover_absorb(struct cover *cover)
{
    size_t kept = 0;
    for (size_t i = 0; i < cover->count; i++) {
        uint64_t bits = cover->cubes[i]->bits;
        int contained = 0;
        size_t end = window_end(i, cover->count);
        for (size_t j = window_start(i); j < end && !contained; j++) {
            if (j != i && cover->cubes[j] != NULL && (bits & ~cover->cubes[j]->bits) == 0) {
                contained = 1;
            }
        }
        if (contained) {
            free(cover->cubes[i]);
            cover->cubes[i] = NULL;
        }
    }
    for (size_t i = 0; i < cover->count; i++) {
        if (cover->cubes[i] != NULL) {
            cover->cubes[kept++] = cover->cubes[i];
        }
    }
    cover->count = kept;
}

// cover_pick returns the variable most cubes depend on, or ESPRESSO_VARIABLES if none does.
static unsigned cover_pick(const struct cover *cover)
{
    unsigned best = ESPRESSO_VARIABLES;
    size_t best_count = 0;
    for (unsigned v = 0; v < ESPRESSO_VARIABLES; v++) {
        size_t count = 0;
        for (size_t i = 0; i < cover->count; i++) {
            count += (cover->cubes[i]->bits >> (2 * v) & 3) != 3;
        }
        if (count > best_count) {
            best = v;
            best_count = count;
        }
    }
    return best;
}

static struct cover cover_complement(const struct cover *cover);

// cover_join adds the cubes of half, narrowed to variable = value. A cube that both halves have at
// near places stays whole, comes twice and is merged by the caller.
static void cover_join(struct cover *result, const struct cover *half, const struct cover *other,
                       unsigned variable, unsigned value)
{
    uint64_t mask = ~(3ULL << (2 * variable)) | 1ULL << (2 * variable + value);
    for (size_t i = 0; i < half->count; i++) {
        uint64_t bits = half->cubes[i]->bits;
        int shared = 0;
        size_t end = window_end(i, other->count);
        for (size_t j = window_start(i); j < end && !shared; j++) {
            shared = other->cubes[j]->bits == bits;
        }
        cover_add(result, shared ? bits : bits & mask);
    }
}

static struct cover cover_complement(const struct cover *cover)
{
    struct cover result = {NULL, 0, 0};
    if (cover->count == 0) {
        cover_add(&result, espresso_universe);
        return result;
    }
    unsigned variable = cover_pick(cover);
    if (variable == ESPRESSO_VARIABLES) {
        return result; // some cube is the whole space
    }
    struct cover halves[2];
    for (unsigned value = 0; value < 2; value++) {
        struct cover cofactor = cover_cofactor(cover, variable, value);
        cover_absorb(&cofactor);
        halves[value] = cover_complement(&cofactor);
        cover_free(&cofactor);
    }
    cover_join(&result, &halves[0], &halves[1], variable, 0);
    cover_join(&result, &halves[1], &halves[0], variable, 1);
    cover_free(&halves[0]);
    cover_free(&halves[1]);
    cover_absorb(&result);
    return result;
}

static struct cover cover_random(uint64_t *random_state)
{
    struct cover cover = {NULL, 0, 0};
    while (cover.count < ESPRESSO_CUBES) {
        uint64_t bits = espresso_universe;
        for (unsigned i = 0; i < ESPRESSO_LITERALS; i++) {
            uint64_t variable = bench_below(random_state, ESPRESSO_VARIABLES);
            bits &= ~(1ULL << (2 * variable + bench_below(random_state, 2)));
        }
        if (!cube_is_empty(bits)) {
            cover_add(&cover, bits);
        }
    }
    return cover;
}

static int cover_has(const struct cover *cover, uint64_t point)
{
    for (size_t i = 0; i < cover->count; i++) {
        if ((point & ~cover->cubes[i]->bits) == 0) {
            return 1;
        }
    }
    return 0;
}

static void cover_check(const struct cover *cover, const struct cover *complement,
                        uint64_t *random_state)
{
    for (unsigned i = 0; i < ESPRESSO_POINTS; i++) {
        uint64_t point = 0;
        for (unsigned v = 0; v < ESPRESSO_VARIABLES; v++) {
            point |= 1ULL << (2 * v + bench_below(random_state, 2));
        }
        if (cover_has(cover, point) == cover_has(complement, point)) {
            bench_fail("espresso: a point is in both or in neither");
        }
    }
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("espresso", argc, argv, 1);
    uint64_t random_state = 0x6573707265737365ULL;
    uint64_t function_count = bench_pick(&bench, 4, 400, 4000);
    uint64_t checksum = 0;
    bench_start(&bench);
    for (uint64_t f = 0; f < function_count; f++) {
        struct cover cover = cover_random(&random_state);
        struct cover complement = cover_complement(&cover);
        cover_check(&cover, &complement, &random_state);
        for (size_t i = 0; i < complement.count; i++) {
            checksum += complement.cubes[i]->bits * (2 * i + 1) ^ complement.cubes[i]->serial;
        }
        cover_free(&cover);
        cover_free(&complement);
    }
    bench_stop(&bench);
    return bench_close(&bench, espresso_cube_count, checksum);
}
