// SPDX-License-Identifier: MIT
//
// What libbacktrace and zlib call, without libc: see parts.h.
//
// Model
//   Small memory comes from the region, in classes of powers of two with a list of free pieces each
//   (libbacktrace frees much of what it takes, and says how large it was). Large memory is a
//   mapping of its own. A view, which is what libbacktrace calls a piece of a file, is a copy of
//   the bytes: a file that is cut short while it is mapped would end the program. Only the
//   program's own file is mapped, which the kernel lets nobody write while it runs.
//
// Why this way
//   libbacktrace's own files for this call malloc or mmap with errno, and ask the dynamic linker,
//   whose lock may be held by a thread that waits for us.
//
// Go  none
#include "profile/parts.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "os/sys.h"

#define SMALL_MAX_BYTES (16 << (PARTS_CLASS_COUNT - 1))
// A piece of a file larger than this is not read; lines are missing then, names are not.
#define VIEW_MAX_BYTES (64 * MIB)

struct parts_block {
    struct parts_block *next;
    size_t bytes;
    size_t counted_bytes;
    void *start; // of the mapping
};

// As libbacktrace's internal.h has them.
struct backtrace_vector {
    void *base;
    size_t used_bytes;
    size_t rest_bytes;
};

struct backtrace_view {
    const void *data;
    void *base;
    size_t bytes;
};

void *backtrace_alloc(struct backtrace_state *state, size_t bytes, backtrace_error_fn error,
                      void *data);
void backtrace_free(struct backtrace_state *state, void *memory, size_t bytes,
                    backtrace_error_fn error, void *data);
void *backtrace_vector_grow(struct backtrace_state *state, size_t bytes, backtrace_error_fn error,
                            void *data, struct backtrace_vector *vector);
void *backtrace_vector_finish(struct backtrace_state *state, struct backtrace_vector *vector,
                              backtrace_error_fn error, void *data);
int backtrace_vector_release(struct backtrace_state *state, struct backtrace_vector *vector,
                             backtrace_error_fn error, void *data);
int backtrace_get_view(struct backtrace_state *state, int file, off_t offset, uint64_t bytes,
                       backtrace_error_fn error, void *data, struct backtrace_view *view);
void backtrace_release_view(struct backtrace_state *state, struct backtrace_view *view,
                            backtrace_error_fn error, void *data);
int backtrace_open(const char *path, backtrace_error_fn error, void *data, int *absent);
int backtrace_close(int file, backtrace_error_fn error, void *data);

int *parts___errno_location(void);
int parts_fstat(int file, struct stat *out);
int parts_lstat(const char *path, struct stat *out);
ssize_t parts_readlink(const char *path, char *buf, size_t cap);
int parts_getpid(void);
int parts_snprintf(char *buf, size_t cap, const char *format, ...);
int parts_dl_iterate_phdr(int (*found)(struct dl_phdr_info *, size_t, void *), void *data);
void *parts_zcalloc(void *opaque, unsigned items, unsigned bytes);
void parts_zcfree(void *opaque, void *memory);

// --- memory ---

void parts_init(struct parts_env *env, struct region *region)
{
    *env = (struct parts_env){.region = region, .file = -1};
}

static bool is_error(long ret)
{
    return (unsigned long)ret >= (unsigned long)-4095;
}

// The record of a mapping lies in the region, so that a file can be mapped as it is.
static struct parts_block *block_new(struct parts_env *env, size_t bytes, int file, off_t offset)
{
    size_t counted = file >= 0 ? 0 : bytes;
    size_t used = env->region->mapped_bytes + env->block_bytes;
    if (counted > env->region->limit_bytes || used > env->region->limit_bytes - counted) {
        return NULL;
    }
    struct parts_block *block = region_alloc(env->region, sizeof(*block));
    if (block == NULL) {
        return NULL;
    }
    int flags = MAP_PRIVATE | (file >= 0 ? 0 : MAP_ANONYMOUS);
    long start = sys_call6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, flags, file, offset);
    if (is_error(start)) {
        return NULL;
    }
    *block = (struct parts_block){env->blocks, bytes, counted, (void *)start};
    env->blocks = block;
    env->block_bytes += counted;
    return block;
}

static void block_drop(struct parts_env *env, struct parts_block **link)
{
    struct parts_block *block = *link;
    *link = block->next;
    env->block_bytes -= block->counted_bytes;
    sys_call2(SYS_munmap, block->start, block->bytes);
}

static void block_free(struct parts_env *env, const void *start)
{
    for (struct parts_block **link = &env->blocks; *link != NULL; link = &(*link)->next) {
        if ((*link)->start == start) {
            block_drop(env, link);
            return;
        }
    }
}

struct parts_block *parts_mark(const struct parts_env *env)
{
    return env->blocks;
}

void parts_back(struct parts_env *env, struct parts_block *mark)
{
    while (env->blocks != mark && env->blocks != NULL) {
        block_drop(env, &env->blocks);
    }
    // A free piece may be the front of a block that is gone (backtrace_vector_release).
    memset(env->free, 0, sizeof(env->free));
}

void parts_end(struct parts_env *env)
{
    parts_back(env, NULL);
}

static size_t class_of(size_t bytes)
{
    size_t class = 0;
    while ((size_t)16 << class < bytes) {
        class ++;
    }
    return class;
}

static void *out_of_memory(backtrace_error_fn error, void *data)
{
    error(data, "no memory", ENOMEM);
    return NULL;
}

void *backtrace_alloc(struct backtrace_state *state, size_t bytes, backtrace_error_fn error,
                      void *data)
{
    (void)state;
    struct parts_env *env = data;
    if (bytes > SMALL_MAX_BYTES) {
        struct parts_block *block =
            bytes > SIZE_MAX / 2 ? NULL : block_new(env, align_up(bytes, 64 * KIB), -1, 0);
        return block == NULL ? out_of_memory(error, data) : block->start;
    }
    size_t class = class_of(bytes);
    void *memory = env->free[class];
    if (memory != NULL) {
        memcpy(&env->free[class], memory, sizeof(void *));
        return memory;
    }
    memory = region_alloc(env->region, (size_t)16 << class);
    return memory == NULL ? out_of_memory(error, data) : memory;
}

void backtrace_free(struct backtrace_state *state, void *memory, size_t bytes,
                    backtrace_error_fn error, void *data)
{
    (void)state;
    (void)error;
    struct parts_env *env = data;
    if (memory == NULL || bytes < sizeof(void *)) {
        return;
    }
    if (bytes > SMALL_MAX_BYTES) {
        block_free(env, memory);
        return;
    }
    // Of what a vector let go the class may be smaller than the piece: never larger.
    size_t class = class_of(bytes);
    memcpy(memory, &env->free[class], sizeof(void *));
    env->free[class] = memory;
}

void *backtrace_vector_grow(struct backtrace_state *state, size_t bytes, backtrace_error_fn error,
                            void *data, struct backtrace_vector *vector)
{
    if (bytes > vector->rest_bytes) {
        size_t want = max_size(vector->used_bytes + bytes, 2 * vector->used_bytes);
        want = want <= SMALL_MAX_BYTES ? (size_t)16 << class_of(want) : align_up(want, 64 * KIB);
        void *base = backtrace_alloc(state, want, error, data);
        if (base == NULL) {
            return NULL;
        }
        if (vector->used_bytes != 0) {
            memcpy(base, vector->base, vector->used_bytes);
        }
        backtrace_free(state, vector->base, vector->used_bytes + vector->rest_bytes, error, data);
        vector->base = base;
        vector->rest_bytes = want - vector->used_bytes;
    }
    void *end = (char *)vector->base + vector->used_bytes;
    vector->used_bytes += bytes;
    vector->rest_bytes -= bytes;
    return end;
}

void *backtrace_vector_finish(struct backtrace_state *state, struct backtrace_vector *vector,
                              backtrace_error_fn error, void *data)
{
    (void)state;
    (void)error;
    (void)data;
    void *base = vector->base;
    *vector = (struct backtrace_vector){NULL, 0, 0};
    return base;
}

// What is used stays where it is; the rest of its piece is lost until the end.
int backtrace_vector_release(struct backtrace_state *state, struct backtrace_vector *vector,
                             backtrace_error_fn error, void *data)
{
    if (vector->used_bytes == 0) {
        backtrace_free(state, vector->base, vector->rest_bytes, error, data);
        vector->base = NULL;
    }
    vector->rest_bytes = 0;
    return 1;
}

void *parts_zalloc(void *opaque, unsigned items, unsigned bytes)
{
    return region_alloc(opaque, (size_t)items * bytes);
}

void parts_zfree(void *opaque, void *memory)
{
    (void)opaque;
    (void)memory;
}

// zlib calls these where it is given no functions, which we always do.
void *parts_zcalloc(void *opaque, unsigned items, unsigned bytes)
{
    (void)opaque;
    (void)items;
    (void)bytes;
    return NULL;
}

void parts_zcfree(void *opaque, void *memory)
{
    (void)opaque;
    (void)memory;
}

// zlib's texts for errors 2 to -6, which nobody reads.
ATTR_HIDDEN extern const char *const parts_z_errmsg[10];
const char *const parts_z_errmsg[10] = {"", "", "", "", "", "", "", "", "", ""};

// --- files ---

int backtrace_open(const char *path, backtrace_error_fn error, void *data, int *absent)
{
    (void)absent;
    struct parts_env *env = data;
    bool own = path == env->path;
    if (own && env->image != NULL) {
        return PARTS_FD_IMAGE;
    }
    long file = sys_call3(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file < 0) {
        // A missing file with debug information is no error, the module itself is.
        if (absent != NULL) {
            *absent = 1;
        } else {
            error(data, path, (int)-file);
        }
        return -1;
    }
    if (own) {
        env->file = (int)file;
    }
    return (int)file;
}

int backtrace_close(int file, backtrace_error_fn error, void *data)
{
    (void)error;
    struct parts_env *env = data;
    if (file == env->file) {
        env->file = -1;
    }
    return file == PARTS_FD_IMAGE || sys_call1(SYS_close, file) == 0;
}

// What libbacktrace believes of an ELF header without looking is looked at here.
static bool view_head(struct parts_env *env, const char *bytes)
{
    Elf64_Ehdr head;
    memcpy(&head, bytes, sizeof(head));
    if (head.e_shentsize != sizeof(Elf64_Shdr) || head.e_shstrndx == 0 ||
        head.e_shstrndx >= head.e_shnum || head.e_shoff > UINT64_MAX / 4) {
        return false;
    }
    env->sections_offset = head.e_shoff;
    env->sections_count = head.e_shnum;
    return true;
}

// Likewise of the headers of sections. In a plain look the debug sections, which the headers tell
// from others, are empty: names come from the symbol table alone then.
static void view_sections(const struct parts_env *env, char *bytes, uint64_t offset, uint64_t count)
{
    if (offset < env->sections_offset ||
        offset - env->sections_offset >= env->sections_count * sizeof(Elf64_Shdr) ||
        (offset - env->sections_offset) % sizeof(Elf64_Shdr) != 0) {
        return;
    }
    for (; count >= sizeof(Elf64_Shdr); count -= sizeof(Elf64_Shdr)) {
        Elf64_Shdr section;
        memcpy(&section, bytes, sizeof(section));
        bool debug = section.sh_type == SHT_PROGBITS || section.sh_type == SHT_NOTE;
        bool symbols = section.sh_type == SHT_SYMTAB || section.sh_type == SHT_DYNSYM;
        if (symbols && (section.sh_link == 0 || section.sh_link >= env->sections_count)) {
            section.sh_type = SHT_NULL;
        }
        if (env->plain && debug) {
            section.sh_size = 0;
        }
        memcpy(bytes, &section, sizeof(section));
        bytes += sizeof(section);
    }
}

// And of a build id, whose length must lie inside its section.
static bool view_note(const char *bytes, uint64_t count)
{
    Elf64_Nhdr note;
    if (count < sizeof(note)) {
        return true;
    }
    memcpy(&note, bytes, sizeof(note));
    return note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 ||
           (count >= sizeof(note) + 4 && note.n_descsz <= count - sizeof(note) - 4);
}

static bool read_whole(int file, char *bytes, uint64_t count, off_t offset)
{
    while (count > 0) {
        long got = sys_call4(SYS_pread64, file, bytes, count, offset);
        if (got == -EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        bytes += got;
        offset += got;
        count -= (uint64_t)got;
    }
    return true;
}

static bool view_map(struct parts_env *env, int file, uint64_t offset, uint64_t bytes,
                     struct backtrace_view *view)
{
    struct stat about;
    if (parts_fstat(file, &about) != 0 || offset + bytes > (uint64_t)about.st_size) {
        return false;
    }
    uint64_t skip = offset % (64 * KIB); // the largest page there is
    struct parts_block *block = block_new(env, bytes + skip, file, (off_t)(offset - skip));
    if (block == NULL) {
        return false;
    }
    view->base = block->start;
    view->data = (char *)block->start + skip;
    return true;
}

static bool view_read(struct parts_env *env, int file, uint64_t offset, uint64_t bytes,
                      struct backtrace_view *view)
{
    if (bytes > VIEW_MAX_BYTES) {
        return false;
    }
    struct parts_block *block = block_new(env, align_up(bytes + 1, 4 * KIB), -1, 0);
    if (block == NULL) {
        return false;
    }
    if (!read_whole(file, block->start, bytes, (off_t)offset)) {
        block_drop(env, &env->blocks);
        return false;
    }
    view->base = block->start;
    view->data = block->start;
    return true;
}

int backtrace_get_view(struct backtrace_state *state, int file, off_t offset, uint64_t bytes,
                       backtrace_error_fn error, void *data, struct backtrace_view *view)
{
    (void)state;
    struct parts_env *env = data;
    uint64_t at = (uint64_t)offset;
    *view = (struct backtrace_view){NULL, NULL, bytes};
    bool good = false;
    if (offset < 0 || bytes > UINT64_MAX / 4) {
        good = false;
    } else if (file == PARTS_FD_IMAGE) {
        good = at <= env->image_bytes && bytes <= env->image_bytes - at;
        view->data = env->image + at;
    } else if (env->mapped && file == env->file && bytes >= 64 * KIB) {
        good = view_map(env, file, at, bytes, view);
    } else {
        good = view_read(env, file, at, bytes, view);
    }
    if (!good) {
        error(data, "piece of a file missing or too large", 0);
        return 0;
    }
    if (at == 0 && bytes == sizeof(Elf64_Ehdr)) {
        env->head_file = file;
        good = view_head(env, view->data);
    } else {
        good = view_note(view->data, bytes);
    }
    if (!good) {
        backtrace_release_view(state, view, error, data);
        error(data, "damaged ELF file", 0);
        return 0;
    }
    if (file == env->head_file && file != PARTS_FD_IMAGE) {
        view_sections(env, (char *)(uintptr_t)view->data, at, bytes);
    }
    return 1;
}

void backtrace_release_view(struct backtrace_state *state, struct backtrace_view *view,
                            backtrace_error_fn error, void *data)
{
    (void)state;
    (void)error;
    if (view->base != NULL) {
        block_free(data, view->base);
        view->base = NULL;
    }
}

// --- libc ---

int *parts___errno_location(void)
{
    static int nobodys_errno;
    return &nobodys_errno;
}

int parts_fstat(int file, struct stat *out)
{
    return sys_call2(SYS_fstat, file, out) == 0 ? 0 : -1;
}

int parts_lstat(const char *path, struct stat *out)
{
    return sys_call4(SYS_newfstatat, AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -1;
}

ssize_t parts_readlink(const char *path, char *buf, size_t cap)
{
    long count = sys_call4(SYS_readlinkat, AT_FDCWD, path, buf, cap);
    return count < 0 ? -1 : count;
}

int parts_getpid(void)
{
    return (int)sys_call0(SYS_getpid);
}

// Only texts of errors are made with it, which nobody reads: the format says enough.
int parts_snprintf(char *buf, size_t cap, const char *format, ...)
{
    size_t count = strlen(format);
    if (cap != 0) {
        size_t take = min_size(count, cap - 1);
        memcpy(buf, format, take);
        buf[take] = '\0';
    }
    return (int)count;
}

// The module at hand, as if loaded at 0: addresses are those in the file.
int parts_dl_iterate_phdr(int (*found)(struct dl_phdr_info *, size_t, void *), void *data)
{
    struct dl_phdr_info info = {.dlpi_addr = 0, .dlpi_name = ""};
    return found(&info, sizeof(info), data);
}
