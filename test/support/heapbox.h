// SPDX-License-Identifier: MIT
//
// A heap in a box: a page heap with its own meta memory on a simulated machine of its own, with a
// machine that can fail in between; and the same machines put under the heap of the process.
//
// Go  runtime/export_test.go NewPageAlloc.
#ifndef EBB_TEST_SUPPORT_HEAPBOX_H
#define EBB_TEST_SUPPORT_HEAPBOX_H

#include "os/vm_fail.h"
#include "os/vm_sim.h"
#include "pageheap/pageheap.h"

struct heapbox {
    struct vm_sim sim;
    struct vm_fail fail; // on top of sim; disarmed
    struct meta meta;
    struct pageheap *pages;
};

// heapbox_open makes a box with kernel pages of page_bytes and space_bytes of address space (a
// multiple of 64 MiB); the seed decides what the machine does by chance. Ends the test if it
// cannot.
void heapbox_open(struct heapbox *box, size_t page_bytes, size_t space_bytes, uint64_t seed);

void heapbox_close(struct heapbox *box);

// heapbox_adopt_main puts the box's machines under heap_main, which nothing has allocated from yet;
// box->pages is pageheap_main then. The releaser's doorbell is taken off: what is released, the
// test releases. Nothing is sampled before sample_set_interval. Cannot be taken back: for a process
// that ends with its test.
void heapbox_adopt_main(struct heapbox *box, size_t page_bytes, size_t space_bytes, uint64_t seed);

// heapbox_verify ends the test if the page heap of the box is not right.
void heapbox_verify(struct heapbox *box, const char *when);

// heap_main_verify freezes the process's heap and ends the test if anything of it is not right.
void heap_main_verify(const char *when);

// heap_main_end does the same and ends the releaser's thread, which would stay for some seconds.
void heap_main_end(const char *when);

#endif
