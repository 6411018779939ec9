// SPDX-License-Identifier: MIT
//
// Region, on Linux: mappings by raw system calls.
//
// Go  none.
#include <string.h>
#include <sys/mman.h>

#include "os/region.h"
#include "os/sys.h"

#define BLOCK_MIN_BYTES (64 * KIB)
#define BLOCK_MAX_BYTES (8 * MIB)

struct region_block {
    struct region_block *next;
    size_t bytes;
};

void region_init(struct region *region, size_t limit_bytes)
{
    *region = (struct region){.limit_bytes = limit_bytes};
}

static bool region_grow(struct region *region, size_t bytes)
{
    size_t doubled = region->blocks == NULL ? BLOCK_MIN_BYTES : region->blocks->bytes * 2;
    size_t head = align_up(sizeof(struct region_block), 16);
    if (bytes > region->limit_bytes || region->mapped_bytes >= region->limit_bytes) {
        return false;
    }
    size_t want = max_size(min_size(doubled, BLOCK_MAX_BYTES), align_up(bytes + head, 64 * KIB));
    if (want > region->limit_bytes - region->mapped_bytes) {
        want = align_up(bytes + head, 4 * KIB);
        if (want > region->limit_bytes - region->mapped_bytes) {
            return false;
        }
    }
    long addr = sys_call6(SYS_mmap, 0, (long)want, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (addr == 0 || (unsigned long)addr >= (unsigned long)-4095) {
        return false;
    }
    struct region_block *block = (struct region_block *)addr;
    block->next = region->blocks;
    block->bytes = want;
    region->blocks = block;
    region->mapped_bytes += want;
    region->pos = (char *)block + head;
    region->end = (char *)block + want;
    return true;
}

void *region_alloc(struct region *region, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = align_up(max_size(bytes, 1), 16);
    if (bytes > (size_t)(region->end - region->pos) && !region_grow(region, bytes)) {
        return NULL;
    }
    void *memory = region->pos;
    region->pos += bytes;
    return memory;
}

char *region_text(struct region *region, const char *text, size_t length)
{
    char *copy = region_alloc(region, length + 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
    }
    return copy;
}

// A sanitizer sees libc's munmap alone: after a raw one it takes the next user of the address, whom
// the kernel gave the same, for a racer.
static void block_unmap(struct region_block *block)
{
    if (RACE_BUILD) {
        munmap(block, block->bytes);
    } else {
        sys_call2(SYS_munmap, block, block->bytes);
    }
}

void region_end(struct region *region)
{
    struct region_block *block = region->blocks;
    while (block != NULL) {
        struct region_block *next = block->next;
        block_unmap(block);
        block = next;
    }
    region_init(region, region->limit_bytes);
}
