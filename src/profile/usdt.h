// SPDX-License-Identifier: MIT
//
// USDT: static probes that a tracer finds in the library's notes, by OpenTelemetry's names:
//   otel_memory:alloc(address, bytes, weight)   a sampled block was allocated
//   otel_memory:free(address)                   a sampled block was freed
//
// Model
//   Only sampled blocks pass here, one in 512 KiB on average (option profile_rate). weight is the
//   number of bytes that the sample stands for: bytes divided by its chance. realloc is a free and
//   an alloc. Each probe has a semaphore, which a tracer raises: while it is 0, nothing is
//   computed.
//
// Locking
//   None; the probes are in the thread that allocates or frees. alloc fires with no lock held and
//   outside of the time by which the pace of samples is found: a tracer may stop the thread. Only
//   realloc's pair of probes, and free, fire within the bracket of the thread's cache.
//
// Flow
//   span/spansample.c -> usdt_alloc, usdt_free -> one no-operation.
//
// Why this way
//   sys/sdt.h of SystemTap writes the notes: bpftrace, perf, gdb and SystemTap read them.
//
// Go       none.
// Tests    test/system/usdt.py
#ifndef EBB_PROFILE_USDT_H
#define EBB_PROFILE_USDT_H

#include "base/base.h"

extern unsigned short otel_memory_alloc_semaphore ATTR_HIDDEN;
extern unsigned short otel_memory_free_semaphore ATTR_HIDDEN;

void usdt_alloc_fire(const void *addr, uint64_t bytes, uint64_t interval_bytes);
void usdt_free_fire(const void *addr);

ATTR_INLINE void usdt_alloc(const void *addr, uint64_t bytes, uint64_t interval_bytes)
{
    if (unlikely(*(volatile unsigned short *)&otel_memory_alloc_semaphore != 0)) {
        usdt_alloc_fire(addr, bytes, interval_bytes);
    }
}

ATTR_INLINE void usdt_free(const void *addr)
{
    if (unlikely(*(volatile unsigned short *)&otel_memory_free_semaphore != 0)) {
        usdt_free_fire(addr);
    }
}

#endif
