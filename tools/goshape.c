// SPDX-License-Identifier: MIT
//
// Prints where the runtime of a Go program has what the doctor reads: a line of root, offset and
// size for each field, in the order of enum go_field; then a line of name and address for each
// variable. For mkgolayouts.py, which makes the table of known layouts of many of these.
//
// Go  none.
#include <fcntl.h>
#include <stdio.h>

#include "doctor/go_look.h"

int main(int argc, char **argv)
{
    static struct go_shape shape;
    uint64_t addrs[GO_VARIABLES];
    struct go_file file;
    char version[64];
    const char *why = "it is no Go program";
    if (argc != 2) {
        fprintf(stderr, "goshape: expected: goshape FILE\n");
        return 2;
    }
    if (!go_file_open(&file, open(argv[1], O_RDONLY | O_CLOEXEC)) ||
        !go_version_read(&file, version, sizeof(version)) ||
        !go_shape_dwarf(&file, 512 * MIB, &shape, addrs, &why)) {
        fprintf(stderr, "goshape: %s: %s\n", argv[1], why);
        return 1;
    }
    printf("version %s\n", version);
    for (size_t i = 0; i < GO_FIELD_COUNT; i++) {
        const struct go_part *part = &shape.parts[i];
        printf("field %u %u %u\n", part->root, part->offset, part->size);
    }
    for (size_t i = 0; i < GO_VARIABLES; i++) {
        printf("variable %s %llu\n", go_root_names()[i], (unsigned long long)addrs[i]);
    }
    go_file_close(&file);
    return 0;
}
