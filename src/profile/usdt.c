// SPDX-License-Identifier: MIT
//
// USDT: the probes themselves.
//
// Go  none.
#include "profile/usdt.h"

#include "profile/heap_sample.h"

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

unsigned short otel_memory_alloc_semaphore __attribute__((section(".probes"), used));
unsigned short otel_memory_free_semaphore __attribute__((section(".probes"), used));

ATTR_NOINLINE void usdt_alloc_fire(const void *addr, uint64_t bytes, uint64_t interval_bytes)
{
    double chance = heap_sample_chance(interval_bytes, (double)bytes);
    uint64_t weight = (uint64_t)((double)bytes / chance);
    STAP_PROBE3(otel_memory, alloc, addr, bytes, weight);
}

ATTR_NOINLINE void usdt_free_fire(const void *addr)
{
    STAP_PROBE1(otel_memory, free, addr);
}
