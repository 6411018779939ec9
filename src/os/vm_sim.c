// SPDX-License-Identifier: MIT
//
// Simulated machine: the calls of struct vm_ops over one real mapping and a byte for each page.
//
// Model    the state and the marks of a page are one byte of sim->pages; see os/vm_sim.h.
// Locking  the spin lock; unused_hook is called without it.
// Go       none.
#include "os/vm_sim.h"

#include <sys/mman.h>

#include "base/check.h"
#include "os/sys.h"

#define STATE_MASK 0x03u
#define MARK_LAZY 0x04u
#define MARK_SPARSE 0x08u

#define SPACE_ALIGN ((size_t)64 << 20)
#define REAL_PAGE_BYTES ((size_t)4096)

static void sim_lock(struct vm_sim *sim)
{
    uint32_t expected = 0;
    while (!cas_acquire(&sim->lock, &expected, 1)) { // pairs with store_release in sim_unlock
        expected = 0;
        cpu_relax();
    }
}

static void sim_unlock(struct vm_sim *sim)
{
    store_release(&sim->lock, 0); // pairs with cas_acquire in sim_lock
}

static void *real_map(size_t bytes, int prot)
{
    long ret = sys_call6(SYS_mmap, 0, SYS_ARG(bytes), prot,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return ret < 0 && ret > -4096 ? NULL : (void *)ret;
}

bool vm_sim_holds(const struct vm_sim *sim, const void *addr)
{
    return (uintptr_t)addr - (uintptr_t)sim->space < sim->space_bytes;
}

static size_t page_of(const struct vm_sim *sim, const void *addr)
{
    CHECK(vm_sim_holds(sim, addr), "vm_sim: address outside the machine");
    return ((uintptr_t)addr - (uintptr_t)sim->space) / sim->vm.page_bytes;
}

enum vm_sim_state vm_sim_state_at(const struct vm_sim *sim, const void *addr)
{
    return (enum vm_sim_state)(sim->pages[page_of(sim, addr)] & STATE_MASK);
}

bool vm_sim_is_lazy(const struct vm_sim *sim, const void *addr)
{
    return (sim->pages[page_of(sim, addr)] & MARK_LAZY) != 0;
}

bool vm_sim_is_sparse(const struct vm_sim *sim, const void *addr)
{
    return (sim->pages[page_of(sim, addr)] & MARK_SPARSE) != 0;
}

// A range of whole pages that the machine has given out: [first, end).
struct page_range {
    size_t first;
    size_t end;
};

static struct page_range range_of(const struct vm_sim *sim, const void *addr, size_t bytes)
{
    size_t page_bytes = sim->vm.page_bytes;
    CHECK(bytes != 0, "vm_sim: empty range");
    CHECK((((uintptr_t)addr | bytes) & (page_bytes - 1)) == 0, "vm_sim: range cuts a page");
    CHECK(bytes <= sim->space_bytes, "vm_sim: range outside the machine");
    struct page_range range = {.first = page_of(sim, addr)};
    page_of(sim, (const char *)addr + bytes - 1);
    range.end = range.first + bytes / page_bytes;
    return range;
}

static bool range_is_none(const struct vm_sim *sim, size_t pos, size_t bytes)
{
    size_t end = (pos + bytes) / sim->vm.page_bytes;
    for (size_t page = pos / sim->vm.page_bytes; page < end; page++) {
        if (sim->pages[page] != VM_SIM_NONE) {
            return false;
        }
    }
    return true;
}

// Where a reservation goes: at the hint if nothing is there, else below the last one that was
// placed freely, as the kernel does it. SIZE_MAX: nowhere.
static size_t place(struct vm_sim *sim, const void *hint, size_t bytes, size_t align)
{
    if (bytes > sim->space_bytes) {
        return SIZE_MAX;
    }
    if (sim->gap_bytes == 0 && vm_sim_holds(sim, hint)) {
        size_t pos = (uintptr_t)hint - (uintptr_t)sim->space;
        if ((pos & (align - 1)) == 0 && bytes <= sim->space_bytes - pos &&
            range_is_none(sim, pos, bytes)) {
            return pos;
        }
    }
    size_t below = sim->space_top - min_size(sim->space_top, sim->gap_bytes);
    if (bytes > below) {
        return SIZE_MAX;
    }
    size_t pos = align_down(below - bytes, align);
    while (!range_is_none(sim, pos, bytes)) {
        if (pos < align) {
            return SIZE_MAX;
        }
        pos -= align;
    }
    sim->space_top = pos;
    return pos;
}

static void *sim_reserve(void *ctx, void *hint, size_t bytes, size_t align)
{
    struct vm_sim *sim = ctx;
    size_t page_bytes = sim->vm.page_bytes;
    CHECK(bytes != 0 && (bytes & (page_bytes - 1)) == 0, "vm_sim: reserve of a part of a page");
    CHECK(is_power_of_two(align) && align <= SPACE_ALIGN, "vm_sim: reserve with a bad alignment");
    char *result = NULL;
    sim_lock(sim);
    sim->reserve_count++;
    size_t pos = SIZE_MAX;
    if (bytes <= sim->space_limit_bytes && sim->reserved_bytes <= sim->space_limit_bytes - bytes) {
        pos = place(sim, hint, bytes, max_size(align, page_bytes));
    }
    if (pos != SIZE_MAX) {
        for (size_t page = pos / page_bytes; page < (pos + bytes) / page_bytes; page++) {
            sim->pages[page] = VM_SIM_RESERVED;
        }
        sim->reserved_bytes += bytes;
        result = sim->space + pos;
    } else {
        sim->refused_count++;
    }
    sim_unlock(sim);
    return result;
}

static bool sim_prepare(void *ctx, void *addr, size_t bytes)
{
    struct vm_sim *sim = ctx;
    struct page_range range = range_of(sim, addr, bytes);
    sim_lock(sim);
    sim->prepare_count++;
    for (size_t page = range.first; page < range.end; page++) {
        CHECK((sim->pages[page] & STATE_MASK) == VM_SIM_RESERVED,
              "vm_sim: prepare of a page that is not reserved");
    }
    bool fits =
        bytes <= sim->commit_limit_bytes && sim->prepared_bytes <= sim->commit_limit_bytes - bytes;
    fits = fits && sys_call3(SYS_mprotect, addr, bytes, PROT_READ | PROT_WRITE) == 0;
    if (fits) {
        for (size_t page = range.first; page < range.end; page++) {
            sim->pages[page] = (uint8_t)((sim->pages[page] & ~STATE_MASK) | VM_SIM_PREPARED);
        }
        sim->prepared_bytes += bytes;
    } else {
        sim->refused_count++;
    }
    sim_unlock(sim);
    return fits;
}

static void check_prepared(const struct vm_sim *sim, struct page_range range)
{
    for (size_t page = range.first; page < range.end; page++) {
        CHECK((sim->pages[page] & STATE_MASK) >= VM_SIM_PREPARED,
              "vm_sim: used or unused of a page that is not prepared");
    }
}

// Touches each page, as populating does: what is there stays.
static void sim_used(void *ctx, void *addr, size_t bytes)
{
    struct vm_sim *sim = ctx;
    if (((uintptr_t)addr & (sim->vm.page_bytes - 1)) != 0) {
        return; // EINVAL: a hint may fail
    }
    bytes = align_up(bytes, sim->vm.page_bytes);
    struct page_range range = range_of(sim, addr, bytes);
    sim_lock(sim);
    sim->used_count++;
    check_prepared(sim, range);
    for (size_t page = range.first; page < range.end; page++) {
        sim->pages[page] = (uint8_t)((sim->pages[page] & ~STATE_MASK) | VM_SIM_READY);
    }
    sim_unlock(sim);
    for (size_t pos = 0; pos < bytes; pos += REAL_PAGE_BYTES) {
        volatile char *byte = (char *)addr + pos;
        *byte = *byte;
    }
}

static void pages_drop(struct vm_sim *sim, size_t first, size_t count)
{
    size_t page_bytes = sim->vm.page_bytes;
    long ret =
        sys_call3(SYS_madvise, sim->space + first * page_bytes, count * page_bytes, MADV_DONTNEED);
    CHECK(ret == 0, "vm_sim: the real kernel refused MADV_DONTNEED");
}

static long sim_unused(void *ctx, void *addr, size_t bytes, enum vm_advice advice)
{
    struct vm_sim *sim = ctx;
    struct page_range range = range_of(sim, addr, bytes);
    if (sim->unused_hook != NULL) {
        sim->unused_hook(sim->unused_arg, addr, bytes);
    }
    sim_lock(sim);
    sim->unused_count++;
    sim->unused_bytes += bytes;
    check_prepared(sim, range);
    for (size_t page = range.first; page < range.end; page++) {
        uint8_t marks = sim->pages[page] & MARK_SPARSE;
        if (advice == VM_ADVICE_FREE) {
            marks |= MARK_LAZY;
            if ((rand_next(&sim->rand) & 1) != 0) {
                pages_drop(sim, page, 1);
            }
        }
        sim->pages[page] = (uint8_t)(VM_SIM_PREPARED | marks);
    }
    if (advice == VM_ADVICE_DONTNEED) {
        pages_drop(sim, range.first, range.end - range.first);
    }
    sim_unlock(sim);
    return 0;
}

static void sim_sparse(void *ctx, void *addr, size_t bytes)
{
    struct vm_sim *sim = ctx;
    struct page_range range = range_of(sim, addr, bytes);
    sim_lock(sim);
    sim->sparse_count++;
    for (size_t page = range.first; page < range.end; page++) {
        CHECK((sim->pages[page] & STATE_MASK) == VM_SIM_RESERVED,
              "vm_sim: sparse of a page that is not reserved");
        sim->pages[page] |= MARK_SPARSE;
    }
    sim_unlock(sim);
}

static bool sim_resident(void *ctx, const void *addr, size_t bytes, unsigned char *pages)
{
    struct vm_sim *sim = ctx;
    const char *pos = addr;
    for (size_t i = 0; i < bytes / sim->vm.page_bytes; i++, pos += sim->vm.page_bytes) {
        pages[i] = vm_sim_resident_bytes(sim, pos, sim->vm.page_bytes) != 0;
    }
    return true;
}

static const struct vm_ops sim_ops = {
    .reserve = sim_reserve,
    .prepare = sim_prepare,
    .used = sim_used,
    .unused = sim_unused,
    .sparse = sim_sparse,
    .resident = sim_resident,
};

bool vm_sim_init(struct vm_sim *sim, size_t page_bytes, size_t space_bytes, uint64_t seed)
{
    CHECK(is_power_of_two(page_bytes) && page_bytes >= REAL_PAGE_BYTES &&
              space_bytes % SPACE_ALIGN == 0,
          "vm_sim: bad page size or address space");
    size_t page_count = space_bytes / page_bytes;
    char *space = real_map(space_bytes + SPACE_ALIGN, PROT_NONE);
    uint8_t *pages = real_map(align_up(page_count, REAL_PAGE_BYTES), PROT_READ | PROT_WRITE);
    if (space == NULL || pages == NULL) {
        return false;
    }
    *sim = (struct vm_sim){
        .vm = {.ops = &sim_ops, .ctx = sim, .page_bytes = page_bytes},
        .space = (char *)align_up((uintptr_t)space, SPACE_ALIGN),
        .space_bytes = space_bytes,
        .pages = pages,
        .space_top = space_bytes,
        .space_limit_bytes = SIZE_MAX,
        .commit_limit_bytes = SIZE_MAX,
    };
    rand_seed(&sim->rand, seed);
    // The edges, so that taking the machine away needs to know the aligned part only.
    size_t below = (size_t)(sim->space - space);
    if (below != 0) {
        sys_call2(SYS_munmap, space, below);
    }
    if (below != SPACE_ALIGN) {
        sys_call2(SYS_munmap, sim->space + space_bytes, SPACE_ALIGN - below);
    }
    return true;
}

void vm_sim_fini(struct vm_sim *sim)
{
    sys_call2(SYS_munmap, sim->space, sim->space_bytes);
    size_t page_count = sim->space_bytes / sim->vm.page_bytes;
    sys_call2(SYS_munmap, sim->pages, align_up(page_count, REAL_PAGE_BYTES));
    sim->space = NULL;
    sim->space_bytes = 0;
}

size_t vm_sim_resident_bytes(const struct vm_sim *sim, const void *addr, size_t bytes)
{
    size_t page_bytes = sim->vm.page_bytes;
    struct page_range range = range_of(sim, addr, bytes);
    size_t resident = 0;
    for (size_t page = range.first; page < range.end; page++) {
        unsigned char in_core[256];
        char *start = sim->space + page * page_bytes;
        size_t real_pages = min_size(page_bytes / REAL_PAGE_BYTES, sizeof(in_core));
        if (sys_call3(SYS_mincore, start, real_pages * REAL_PAGE_BYTES, in_core) != 0) {
            continue; // not mapped: nothing resident
        }
        bool any = false;
        for (size_t i = 0; i < real_pages; i++) {
            any = any || (in_core[i] & 1) != 0;
        }
        resident += any ? page_bytes : 0;
    }
    return resident;
}
