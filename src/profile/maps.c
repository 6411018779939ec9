// SPDX-License-Identifier: MIT
//
// Maps: /proc/self/maps read and put in the order pprof wants it: the program's own mappings first.
//
// The program is told from its libraries by its entry point: paths and inodes of /proc/self/maps
// are not those of stat(2) on every file system. Images are looked into by way of the kernel,
// because a library may go while we look.
//
// Go  1.19 runtime/pprof/proto.go parseProcSelfMaps.
#include "profile/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/uio.h>

#include "os/sys.h"

#define READ_BYTES (16 * KIB)
// An image's first page has its program headers and, as every linker does it, its notes.
#define HEAD_BYTES (4 * KIB)

static const char *number_hex(const char *text, const char *end, uint64_t *value)
{
    uint64_t sum = 0;
    for (; text < end; text++) {
        char c = *text;
        unsigned digit = 16;
        if (c >= '0' && c <= '9') {
            digit = (unsigned)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (unsigned)(c - 'a') + 10;
        }
        if (digit == 16) {
            break;
        }
        sum = sum << 4 | digit;
    }
    *value = sum;
    return text;
}

static const char *number_decimal(const char *text, const char *end, uint64_t *value)
{
    uint64_t sum = 0;
    for (; text < end && *text >= '0' && *text <= '9'; text++) {
        sum = sum * 10 + (uint64_t)(*text - '0');
    }
    *value = sum;
    return text;
}

// As the kernel packs a device number for stat(2).
static uint64_t device_of(uint64_t major, uint64_t minor)
{
    return (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~UINT64_C(0xff)) << 12;
}

bool maps_parse(const char *text, size_t length, struct maps_line *line)
{
    const char *end = text + length;
    uint64_t start = 0;
    uint64_t stop = 0;
    uint64_t major = 0;
    uint64_t minor = 0;
    *line = (struct maps_line){.path = ""};
    text = number_hex(text, end, &start);
    if (end - text < 1 || *text != '-') {
        return false;
    }
    text = number_hex(text + 1, end, &stop);
    if (end - text < 6 || *text != ' ') {
        return false;
    }
    line->executable = text[3] == 'x';
    text = number_hex(text + 6, end, &line->offset);
    text = number_hex(text + (text < end), end, &major);
    text = number_hex(text + (text < end), end, &minor);
    text = number_decimal(text + (text < end), end, &line->inode);
    while (text < end && *text == ' ') {
        text++;
    }
    line->start = start;
    line->end = stop;
    line->device = device_of(major, minor);
    line->path = text;
    line->path_length = (size_t)(end - text);
    static const char mark[] = " (deleted)";
    size_t mark_length = sizeof(mark) - 1;
    if (line->path_length > mark_length && memcmp(end - mark_length, mark, mark_length) == 0) {
        line->path_length -= mark_length;
        line->deleted = true;
    }
    return stop > start;
}

static bool same_file(const struct maps_module *module, const struct maps_line *line)
{
    return module->inode == line->inode && module->device == line->device &&
           strlen(module->path) == line->path_length &&
           memcmp(module->path, line->path, line->path_length) == 0;
}

// The image of an executable mapping begins where the last mapping of its file at offset 0 lies: a
// library may be loaded twice, in two namespaces of the linker.
static uintptr_t image_of(const struct maps_line *line, const struct maps_line *head)
{
    if (line->offset == 0 || line->inode == 0) {
        return line->start;
    }
    bool same = head->end != 0 && head->inode == line->inode && head->device == line->device;
    return same ? head->start : 0;
}

// A program that has changed its user may not open its own /proc/self/mem, a container may forbid
// process_vm_readv: one of the two is there.
size_t maps_memory(struct maps *maps, uintptr_t from, void *to, size_t bytes)
{
    struct iovec local = {to, bytes};
    struct iovec remote = {(void *)from, bytes};
    long got = sys_call6(SYS_process_vm_readv, sys_call0(SYS_getpid), SYS_ARG(&local), 1,
                         SYS_ARG(&remote), 1, 0);
    if (got == -EPERM || got == -ENOSYS) {
        if (maps->memory < 0) {
            int flags = O_RDONLY | O_CLOEXEC;
            maps->memory = (int)sys_call3(SYS_openat, AT_FDCWD, "/proc/self/mem", flags);
        }
        got = sys_call4(SYS_pread64, maps->memory, to, bytes, from);
    }
    return got < 0 ? 0 : (size_t)got;
}

static void module_look(struct maps *maps, struct maps_module *module, struct region *region)
{
    char *head = region_alloc(region, HEAD_BYTES);
    module->build_id = "";
    if (head == NULL || module->image == 0) {
        return;
    }
    size_t got = maps_memory(maps, module->image, head, HEAD_BYTES);
    const char *id = maps_build_id(head, got, region);
    module->build_id = id == NULL ? "" : id;
}

static struct maps_module *module_get(struct maps *maps, const struct maps_line *line,
                                      uintptr_t image, struct region *region)
{
    for (struct maps_module *module = maps->first; module != NULL; module = module->next) {
        if (module->image == image && same_file(module, line)) {
            return module;
        }
    }
    struct maps_module *module = region_alloc(region, sizeof(*module));
    char *path = region_text(region, line->path, line->path_length);
    if (module == NULL || path == NULL) {
        return NULL;
    }
    module->path = path;
    module->device = line->device;
    module->inode = line->inode;
    module->image = image;
    module->text = line->start;
    module->text_end = line->end;
    module->text_offset = line->offset;
    module->image_bytes = line->inode == 0 ? line->end - line->start : 0;
    module->deleted = line->deleted;
    module->next = maps->first;
    maps->first = module;
    module_look(maps, module, region);
    return module;
}

static bool maps_room(struct maps *maps, struct region *region)
{
    if (maps->count < maps->room) {
        return true;
    }
    size_t room = maps->room == 0 ? 64 : 2 * maps->room;
    struct symbol_mapping *mappings = region_alloc(region, room * sizeof(*mappings));
    struct maps_module **modules = region_alloc(region, room * sizeof(struct maps_module *));
    if (mappings == NULL || modules == NULL) {
        return false;
    }
    if (maps->count != 0) {
        memcpy(mappings, maps->mappings, maps->count * sizeof(*mappings));
        memcpy(modules, maps->modules, maps->count * sizeof(struct maps_module *));
    }
    maps->mappings = mappings;
    maps->modules = modules;
    maps->room = room;
    return true;
}

static bool maps_add(struct maps *maps, const struct maps_line *line, const struct maps_line *head,
                     struct region *region)
{
    struct maps_module *module = module_get(maps, line, image_of(line, head), region);
    if (module == NULL || !maps_room(maps, region)) {
        return false;
    }
    uintptr_t entry = getauxval(AT_ENTRY);
    module->main |= entry >= line->start && entry < line->end;
    maps->modules[maps->count] = module;
    maps->mappings[maps->count] = (struct symbol_mapping){
        .start = line->start,
        .end = line->end,
        .offset = line->offset,
        .path = module->path,
        .build_id = module->build_id,
    };
    maps->count++;
    return true;
}

// Moves the program's own mappings to the front; the others keep their order.
static void maps_main_first(struct maps *maps)
{
    size_t front = 0;
    for (size_t i = 0; i < maps->count; i++) {
        if (!maps->modules[i]->main) {
            continue;
        }
        struct symbol_mapping mapping = maps->mappings[i];
        struct maps_module *module = maps->modules[i];
        memmove(maps->mappings + front + 1, maps->mappings + front,
                (i - front) * sizeof(*maps->mappings));
        memmove(maps->modules + front + 1, maps->modules + front,
                (i - front) * sizeof(struct maps_module *));
        maps->mappings[front] = mapping;
        maps->modules[front] = module;
        front++;
    }
}

// Takes the whole lines at the front of the buffer; returns how many bytes they are.
static size_t maps_take(struct maps *maps, const char *text, size_t length, struct maps_line *head,
                        struct region *region)
{
    size_t done = 0;
    const char *newline;
    while ((newline = memchr(text + done, '\n', length - done)) != NULL) {
        struct maps_line line;
        size_t count = (size_t)(newline - text) - done;
        if (maps_parse(text + done, count, &line)) {
            if (line.offset == 0 && line.inode != 0) {
                *head = line;
            }
            // Code without a name is made at run time: nobody can name what is in it.
            if (line.executable && (line.inode != 0 || line.path_length != 0)) {
                maps->failed |= !maps_add(maps, &line, head, region);
            }
        }
        done += count + 1;
    }
    return done;
}

bool maps_read(struct maps *maps, struct region *region)
{
    *maps = (struct maps){.memory = -1};
    char *buf = region_alloc(region, READ_BYTES);
    if (buf == NULL) {
        return false;
    }
    long file = sys_call3(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return true; // addresses without mappings then
    }
    struct maps_line head = {.end = 0};
    size_t length = 0;
    for (;;) {
        long got = sys_call3(SYS_read, file, buf + length, READ_BYTES - length);
        if (got <= 0) {
            break;
        }
        length += (size_t)got;
        size_t done = maps_take(maps, buf, length, &head, region);
        memmove(buf, buf + done, length - done);
        length -= done;
        if (length == READ_BYTES) {
            length = 0; // no line is that long
        }
    }
    sys_call1(SYS_close, file);
    maps_main_first(maps);
    return !maps->failed;
}

void maps_close(struct maps *maps)
{
    if (maps->memory >= 0) {
        sys_call1(SYS_close, maps->memory);
        maps->memory = -1;
    }
}
