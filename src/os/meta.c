// SPDX-License-Identifier: MIT
//
// Meta memory: a bump allocator over blocks from the kernel.
//
// Go  1.16 malloc.go persistentalloc1.
#include "os/meta.h"

#define META_ALIGN ((size_t)64)
#define META_BLOCK_BYTES ((size_t)64 << 10)

void meta_init(struct meta *meta, const struct vm *vm, void *first, size_t first_bytes)
{
    lock_init(&meta->lock, LOCKRANK_META);
    meta->vm = vm;
    meta->first = first;
    meta->first_bytes = first_bytes;
    meta->pos = first;
    meta->end = first == NULL ? NULL : (char *)first + first_bytes;
}

static void *meta_map(struct meta *meta, size_t bytes)
{
    lock_assert_held(&meta->lock);
    if (meta->kept_bytes < bytes) {
        // A smaller piece kept from before is given up for a larger one: at most once per size.
        meta->kept = vm_reserve(meta->vm, NULL, bytes, meta->vm->page_bytes);
        meta->kept_bytes = meta->kept == NULL ? 0 : bytes;
    }
    if (meta->kept == NULL || !vm_prepare(meta->vm, meta->kept, bytes)) {
        return NULL;
    }
    char *addr = meta->kept;
    meta->kept_bytes -= bytes;
    meta->kept = meta->kept_bytes == 0 ? NULL : addr + bytes;
    add_relaxed(&meta->reserved_bytes, bytes);
    return addr;
}

void *meta_alloc(struct meta *meta, size_t bytes, enum meta_owner owner)
{
    bytes = align_up(bytes, META_ALIGN);
    lock_acquire(&meta->lock);
    char *result = (char *)align_up((uintptr_t)meta->pos, META_ALIGN);
    if (meta->pos == NULL || (size_t)(meta->end - result) < bytes || result > meta->end) {
        // The rest of the old block is lost: at most one structure's size per 64 KiB.
        size_t block_bytes = max_size(META_BLOCK_BYTES, align_up(bytes, meta->vm->page_bytes));
        char *block = meta_map(meta, block_bytes);
        if (block == NULL) {
            lock_release(&meta->lock);
            return NULL;
        }
        result = block;
        meta->end = block + block_bytes;
    }
    meta->pos = result + bytes;
    lock_release(&meta->lock);
    add_relaxed(&meta->bytes[owner], bytes);
    return result;
}

void meta_charge(struct meta *meta, size_t bytes, enum meta_owner owner)
{
    add_relaxed(&meta->reserved_bytes, bytes);
    add_relaxed(&meta->bytes[owner], bytes);
}

void *meta_reserve(struct meta *meta, size_t bytes, enum meta_owner owner)
{
    bytes = align_up(bytes, meta->vm->page_bytes);
    lock_acquire(&meta->lock);
    void *addr = meta_map(meta, bytes);
    lock_release(&meta->lock);
    if (addr != NULL) {
        add_relaxed(&meta->bytes[owner], bytes);
    }
    return addr;
}
