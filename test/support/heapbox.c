// SPDX-License-Identifier: MIT
//
// A heap in a box.
//
// Go  none
#include "support/heapbox.h"

#include <stdio.h>
#include <sys/mman.h>

#include "boot/boot.h"
#include "release/release.h"
#include "span/span.h"
#include "stats/stats.h"
#include "support/frame.h"

// The page heap's own struct is several MiB, nearly all of it never touched.
static struct pageheap *pageheap_map_struct(void)
{
    void *addr = mmap(NULL, sizeof(struct pageheap), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    FRAME_CHECK(addr != MAP_FAILED);
    return addr;
}

void heapbox_open(struct heapbox *box, size_t page_bytes, size_t space_bytes, uint64_t seed)
{
    *box = (struct heapbox){.pages = pageheap_map_struct()};
    FRAME_CHECK(vm_sim_init(&box->sim, page_bytes, space_bytes, seed));
    vm_fail_init(&box->fail, &box->sim.vm);
    meta_init(&box->meta, &box->fail.vm, NULL, 0);
    pageheap_init(box->pages, &box->fail.vm, &box->meta, (uintptr_t)box->sim.space);
}

void heapbox_close(struct heapbox *box)
{
    munmap(box->pages, sizeof(*box->pages));
    vm_sim_fini(&box->sim);
    box->pages = NULL;
}

void heapbox_adopt_main(struct heapbox *box, size_t page_bytes, size_t space_bytes, uint64_t seed)
{
    heap_init();
    frame_allow_mappings(1000); // the machine stays to the end of the process
    *box = (struct heapbox){.pages = &pageheap_main};
    FRAME_CHECK(pageheap_main.window_start == 0);
    FRAME_CHECK(vm_sim_init(&box->sim, page_bytes, space_bytes, seed));
    vm_fail_init(&box->fail, &box->sim.vm);
    vm_kernel.page_bytes = page_bytes; // the releaser and preload read it there
    heap_main.meta.vm = &box->fail.vm;
    pageheap_main.vm = &box->fail.vm;
    pageheap_main.unit_pages = (uint32_t)max_size(page_bytes >> PAGE_SHIFT, 1);
    pageheap_main.hint = (uintptr_t)box->sim.space;
    pageheap_set_grow_hook(&pageheap_main, NULL);
    store_relaxed(&heap_main.sample_interval, 0); // sampled blocks lie elsewhere, by chance
}

static void require(const char *wrong, const char *what, const char *when)
{
    if (wrong != NULL) {
        fprintf(stderr, "%s, %s: %s\n", what, when, wrong);
        frame_failed(__FILE__, __LINE__, what, wrong);
    }
}

void heapbox_verify(struct heapbox *box, const char *when)
{
    require(pageheap_verify(box->pages), "pageheap_verify", when);
}

void heap_main_verify(const char *when)
{
    struct ebb_memstats stats;
    unsigned skipped = world_freeze(&heap_main);
    const char *wrong = skipped != 0 ? "a thread did not leave its bracket" : NULL;
    wrong = wrong != NULL ? wrong : span_verify_all(&heap_main);
    wrong = wrong != NULL ? wrong : pageheap_verify(heap_main.pages);
    world_thaw(&heap_main);
    require(wrong, "verifiers of the frozen heap", when);
    memstats_read(&stats);
    require(stats.skipped_count != 0 ? "a thread could not be asked" : memstats_verify(&stats),
            "memstats_verify", when);
}

void heap_main_end(const char *when)
{
    heap_main_verify(when);
    releaser_pause();
}
