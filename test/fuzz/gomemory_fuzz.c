// SPDX-License-Identifier: MIT
// Tier  commit
//
// Fuzzing what the doctor reads in the memory of a Go program: the input is a layout, three bytes
// for each field, and the memory that it leads into. The memory has a fixed address, so that an
// input may hold pointers.
//
// Go  none.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "doctor/go_look.h"
#include "fuzz.h"
#include "support/gofile.h"

#define MEMORY_START UINT64_C(0x500000000000)
#define MEMORY_BYTES (64 * KIB)
#define FIELD_BYTES 3

static unsigned char *memory;
static struct go_file file;
static struct go_pcln pcln;

static void program_make(void)
{
    static struct gofile bytes;
    memory = mmap((void *)MEMORY_START, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    FUZZ_REQUIRE(memory == (unsigned char *)MEMORY_START);
    gofile_make(&bytes);
    FUZZ_REQUIRE(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    FUZZ_REQUIRE(go_pcln_file(&pcln, &file, 0, NULL));
}

// Per field: what it is (bit 7: known, bit 6: an array, bit 5: a variable, else a member of a
// type), its size (of an array: the logarithm), and where, 16 bits.
static void layout_make(struct go_layout *layout, const uint8_t *data)
{
    memset(layout, 0, sizeof(*layout));
    for (size_t i = 0; i < GO_FIELD_COUNT; i++, data += FIELD_BYTES) {
        uint64_t at = data[1] | (uint64_t)data[2] << 8;
        layout->fields[i] = (struct go_value){
            .at = (data[0] & 0x20) != 0 ? MEMORY_START + at : at,
            .size = (data[0] & 0x40) != 0 ? UINT64_C(1) << (data[0] & 0x1f) : data[0] & 0x1f,
            .known = (data[0] & 0x80) != 0,
        };
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct go_layout layout;
    static struct facts facts;
    static const struct doctor_options options = {.exact = true};
    struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    uint64_t count;
    if (memory == NULL) {
        program_make();
    }
    if (size < GO_FIELD_COUNT * FIELD_BYTES) {
        return 0;
    }
    memset(&facts, 0, sizeof(facts));
    memset(memory, 0, MEMORY_BYTES);
    layout_make(&layout, data);
    data += GO_FIELD_COUNT * FIELD_BYTES;
    size -= GO_FIELD_COUNT * FIELD_BYTES;
    memcpy(memory, data, min_size(size, MEMORY_BYTES));
    if (go_stats_read(&exam, &layout, &facts.go)) {
        FUZZ_REQUIRE(facts.go.heap_live_bytes <= facts.go.heap_inuse_bytes);
    }
    if (go_count_read(&exam, &layout, &count)) {
        FUZZ_REQUIRE(count != 0 && count <= UINT32_MAX);
    }
    go_timers_read(&exam, &layout, &count);
    go_routines_read(&exam, &layout, &pcln);
    go_profile_read(&exam, &layout, &pcln);
    go_layout_check(&exam, &file, 0, &layout);
    FUZZ_REQUIRE(facts.go.groups_count <= GO_GROUPS_MAX && facts.sites_count <= SITES_MAX);
    return 0;
}
