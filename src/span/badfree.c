// SPDX-License-Identifier: MIT
//
// Bad frees: says what the program did wrong, in one line, and ends it.
//
// What is guaranteed: an address that is not ours, one inside a block, and a second free of a block
// that has been neither reused nor written to since. A block written to after its free, or freed a
// second time after somebody else got it, is not recognised.
//
// Go  1.16 mheap.go badPointer. The key in the block after glibc's tcache.
#include "base/fmt.h"
#include "span/span_int.h"

static void line_start(struct fmt *line, char *buf, size_t cap, const char *what, const char *call,
                       const void *addr)
{
    fmt_init(line, buf, cap);
    fmt_str(line, what);
    fmt_str(line, ": ");
    fmt_str(line, call);
    fmt_str(line, " of ");
    fmt_hex(line, (uintptr_t)addr);
}

ATTR_COLD ATTR_NORETURN static void die_inside(const struct span *span, const void *addr,
                                               const char *call)
{
    char buf[256];
    struct fmt line;
    size_t offset = (uintptr_t)addr - span->base;
    size_t block_bytes = span_block_bytes(span);
    line_start(&line, buf, sizeof(buf), "invalid pointer", call, addr);
    fmt_str(&line, ", which is ");
    fmt_u64(&line, offset % block_bytes);
    fmt_str(&line, " bytes inside a block of ");
    fmt_u64(&line, block_bytes);
    fmt_str(&line, " bytes that starts at ");
    fmt_hex(&line, (uintptr_t)addr - offset % block_bytes);
    fatal_user(&line);
}

ATTR_COLD ATTR_NORETURN static void die_double(const struct span *span, const void *addr,
                                               const char *call)
{
    char buf[256];
    struct fmt line;
    line_start(&line, buf, sizeof(buf), "double free", call, addr);
    fmt_str(&line, ", a block of ");
    fmt_u64(&line, span_block_bytes(span));
    fmt_str(&line, " bytes that is already free");
    fatal_user(&line);
}

ATTR_COLD ATTR_NORETURN void badfree_foreign(void *addr, const char *call)
{
    struct span *span = pageheap_find(heap_main.pages, addr);
    if (span != NULL && span->size_class == 0 && span_state(span) == SPAN_LARGE) {
        die_inside(span, addr, call);
    }
    char buf[256];
    struct fmt line;
    line_start(&line, buf, sizeof(buf), "invalid pointer", call, addr);
    bool ours = span_of(heap_main.pages, addr) != NULL;
    fmt_str(&line, ours ? ", an address of the heap where no block is (freed before, or never "
                          "allocated)"
                        : ", an address that malloc never returned");
    fatal_user(&line);
}

// badfree_check ends the program: the fast checks have found something wrong with addr. The key
// alone is proof of a double free: malloc clears it, so a block in use holds it once in 2^64.
void badfree_check(const struct span *span, void *addr, const char *call)
{
    if (span->size_class == 0) {
        if (span_state(span) == SPAN_CACHED) {
            die_double(span, addr, call);
        }
        die_inside(span, addr, call);
    }
    if (!span_holds_block(span, addr)) {
        // A sampled block had its address a power of two into the block (span/spansample.c).
        size_t offset = ((uintptr_t)addr - span->base) % span->block_bytes;
        const struct block *block = (const struct block *)((uintptr_t)addr - offset);
        if (offset < 16 || !is_power_of_two(offset) ||
            block->key != (heap_main.secret ^ (uintptr_t)block)) {
            die_inside(span, addr, call);
        }
    }
    die_double(span, addr, call);
}
