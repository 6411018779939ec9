// SPDX-License-Identifier: MIT
//
// Lock ranks: one line per lock, outermost first. A thread takes locks in this order only; builds
// with CHECK_LEVEL >= 1 check it at every lock (os/lock.c). Above the MALLOC line a holder may
// allocate from the heap, below it may not: that code is the allocator. docs/LOCKS.md is made from
// this table.
//
// Go  runtime/lockrank.go.
#ifndef EBB_OS_LOCKRANK_H
#define EBB_OS_LOCKRANK_H

// X(name, what it protects)
#define LOCKRANK_TABLE(X)                                                                          \
    X(BOOT, "phases of coming to life (boot/boot.c)")                                              \
    X(MALLOC, "not a lock: the line below which nothing may allocate")                             \
    X(WORLD, "list of caches, claims, freezing (span/world.c)")                                    \
    X(CACHE, "one cache, in builds for the race detector only (span/span.h)")                      \
    X(CENTRAL, "one per size class: spans without an owner (span/central.c)")                      \
    X(PAGEHEAP, "runs of pages, records, page map (pageheap/pageheap.c)")                          \
    X(PROFILE, "samples and their stacks (profile/heap_sample.c, wait_sample.c)")                  \
    X(META, "memory for our own structures (os/meta.c)")

#define LOCKRANK_ENUM(name, text) LOCKRANK_##name,
enum lockrank { LOCKRANK_TABLE(LOCKRANK_ENUM) LOCKRANK_COUNT };
#undef LOCKRANK_ENUM

#endif
