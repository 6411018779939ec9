// SPDX-License-Identifier: MIT
//
// shapes: takes and frees memory in the shapes of somebody's service, as its standard input says.
//
//   up SLOT BYTES PIECE   takes BYTES in blocks of PIECE and writes to every page
//   down SLOT             frees what the slot holds
//   policy NAME           puts another policy in force
// Each line is answered by "ok"; at the end of the input it exits. The table of pointers lies
// outside the heap.
// Go  none
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 16, BLOCKS = 65536 };

static char *blocks[SLOTS][BLOCKS];
static size_t counts[SLOTS];

static void up(unsigned slot, size_t bytes, size_t piece)
{
    for (size_t sum = 0; sum < bytes; sum += piece) {
        char *block = malloc(piece);

        if (!block || counts[slot] == BLOCKS) {
            fprintf(stderr, "shapes: no block of %zu bytes\n", piece);
            exit(2);
        }
        for (size_t at = 0; at < piece; at += 4096) {
            block[at] = 1;
        }
        blocks[slot][counts[slot]++] = block;
    }
}

static void down(unsigned slot)
{
    while (counts[slot] > 0) {
        free(blocks[slot][--counts[slot]]);
    }
}

static void policy(const char *name)
{
    int (*set_policy)(const char *);
    void *found = dlsym(RTLD_DEFAULT, "ebb_release_set_policy");

    memcpy(&set_policy, &found, sizeof set_policy);
    if (!found || set_policy(name) != 0) {
        fprintf(stderr, "shapes: no policy %s\n", name);
        exit(2);
    }
}

// Without stdio, which would allocate.
static int line_read(char *line, size_t size)
{
    size_t len = 0;

    while (len < size - 1 && read(STDIN_FILENO, &line[len], 1) == 1) {
        if (line[len] == '\n') {
            line[len] = '\0';
            return 1;
        }
        len++;
    }
    return 0;
}

int main(void)
{
    char line[100];

    while (line_read(line, sizeof line)) {
        unsigned slot;
        size_t bytes, piece;
        char name[20];

        if (sscanf(line, "up %u %zu %zu", &slot, &bytes, &piece) == 3 && slot < SLOTS) {
            up(slot, bytes, piece);
        } else if (sscanf(line, "down %u", &slot) == 1 && slot < SLOTS) {
            down(slot);
        } else if (sscanf(line, "policy %19s", name) == 1) {
            policy(name);
        } else {
            fprintf(stderr, "shapes: what is \"%s\"?\n", line);
            return 2;
        }
        if (write(STDOUT_FILENO, "ok\n", 3) != 3) {
            return 2;
        }
    }
    return 0;
}
