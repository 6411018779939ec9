// SPDX-License-Identifier: MIT
//
// Symbols: the function, file and line of an address of our process.
//
// Model
//   A module is a file (or the vdso) that code runs from. When an address in it is first asked for,
//   its file is opened, and libbacktrace reads its DWARF, or that of a file of /usr/lib/debug with
//   the same build id, or else its symbol table. Where the DWARF cannot be had (larger than the
//   memory allowed, damaged) the module is read once more without it: names, no lines.
//   A file is believed only if it is the one that is mapped: the same device and inode, or the same
//   build id (overlay file systems show other numbers in /proc/self/maps than in stat(2)).
//   Where no file says anything, a function is still one: the unwind tables in memory say where it
//   begins, and it is called by that, prog+0x1136.
//
//   Files that were cut, and headers, symbols and notes that are damaged, do no harm; damage inside
//   DWARF is left to libbacktrace, which checks most of it.
//
// Locking
//   None: a struct symbols belongs to one thread.
//
// Why this way
//   Runs in a thread that libc does not know, and may not wait for the dynamic linker (parts.h). So
//   no dladdr; and all memory is the caller's region.
//
// Go  1.19 runtime/symtab.go CallersFrames; net/http/pprof/pprof.go Symbol.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "os/sys.h"
#include "profile/maps.h"
#include "profile/parts.h"

#define HEAD_BYTES (4 * KIB)
#define TEXTS_COUNT 4096

// A text that was found, kept once.
struct symbol_text {
    struct symbol_text *next;
    uint64_t hash;
    char text[];
};

struct symbols {
    struct region *region;
    struct maps maps;
    struct parts_env env;
    struct symbol_text *texts[TEXTS_COUNT];
};

// What one look-up has found; env.call.
struct lookup {
    struct symbols *symbols;
    struct symbol_line *lines;
    size_t max;
    size_t count;
    const char *name; // of the symbol table
    uintptr_t start;
};

size_t symbols_share(size_t wanted_bytes, const struct cgroup_memory *memory)
{
    uint64_t limit = cgroup_memory_limit(memory);
    if (limit == CGROUP_UNLIMITED || wanted_bytes <= SYMBOLS_LEAST_BYTES) {
        return wanted_bytes;
    }
    uint64_t cached = memory->cache_bytes - min_u64(memory->cache_bytes, memory->shmem_bytes);
    uint64_t used = memory->usage_bytes - min_u64(memory->usage_bytes, cached);
    uint64_t quarter = (limit - min_u64(limit, used)) / 4;
    return (size_t)min_u64(wanted_bytes, max_u64(quarter, SYMBOLS_LEAST_BYTES));
}

size_t symbols_limit(size_t wanted_bytes)
{
    struct cgroup group;
    struct cgroup_memory memory;
    if (wanted_bytes <= SYMBOLS_LEAST_BYTES || !cgroup_find("", &group) ||
        !cgroup_memory_read(&group, &memory)) {
        return wanted_bytes;
    }
    return symbols_share(wanted_bytes, &memory);
}

struct symbols *symbols_open(struct region *region)
{
    struct symbols *symbols = region_alloc(region, sizeof(*symbols));
    if (symbols == NULL) {
        return NULL;
    }
    symbols->region = region;
    parts_init(&symbols->env, region);
    if (!maps_read(&symbols->maps, region)) {
        maps_close(&symbols->maps);
        return NULL;
    }
    return symbols;
}

void symbols_close(struct symbols *symbols)
{
    parts_end(&symbols->env);
    maps_close(&symbols->maps);
}

struct symbol_mapping *symbols_mappings(struct symbols *symbols, size_t *count)
{
    *count = symbols->maps.count;
    return symbols->maps.mappings;
}

size_t symbols_mapping_of(const struct symbols *symbols, uintptr_t pc)
{
    const struct maps *maps = &symbols->maps;
    for (size_t i = 0; i < maps->count; i++) {
        if (pc >= maps->mappings[i].start && pc < maps->mappings[i].end) {
            return i;
        }
    }
    return SIZE_MAX;
}

// --- texts ---

// A line of text is a line, whatever a damaged file calls a function.
static char plain(char c)
{
    return (unsigned char)c < ' ' || c == 127 ? '?' : c;
}

static bool text_is(const char *kept, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (kept[i] != plain(text[i])) {
            return false;
        }
    }
    return kept[length] == '\0';
}

static const char *text_keep(struct symbols *symbols, const char *text)
{
    uint64_t hash = 14695981039346656037U; // FNV-1a
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211U;
    }
    struct symbol_text **slot = &symbols->texts[hash % TEXTS_COUNT];
    for (struct symbol_text *known = *slot; known != NULL; known = known->next) {
        if (known->hash == hash && text_is(known->text, text, length)) {
            return known->text;
        }
    }
    struct symbol_text *kept = region_alloc(symbols->region, sizeof(*kept) + length + 1);
    if (kept == NULL) {
        return NULL;
    }
    kept->hash = hash;
    for (size_t i = 0; i < length; i++) {
        kept->text[i] = plain(text[i]);
    }
    kept->next = *slot;
    *slot = kept;
    return kept->text;
}

// --- modules ---

static bool same_content(const struct symbols *symbols, const struct maps_module *module,
                         const char *head, size_t bytes)
{
    const char *id = maps_build_id(head, bytes, symbols->region);
    return id != NULL && id[0] != '\0' && strcmp(id, module->build_id) == 0;
}

// Whether path leads to the file that is mapped; then its bias is known.
static bool module_try(struct symbols *symbols, struct maps_module *module, const char *path,
                       bool surely)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    long file = sys_call3(SYS_openat, AT_FDCWD, path, flags);
    if (file < 0) {
        return false;
    }
    struct stat about;
    bool good = false;
    char *head = region_alloc(symbols->region, HEAD_BYTES);
    if (head != NULL && sys_call2(SYS_fstat, file, &about) == 0 && S_ISREG(about.st_mode)) {
        long got = sys_call4(SYS_pread64, file, head, HEAD_BYTES, 0);
        size_t bytes = got > 0 ? (size_t)got : 0;
        good = surely || (about.st_dev == module->device && about.st_ino == module->inode) ||
               same_content(symbols, module, head, bytes);
        good = good && maps_bias(module, head, bytes);
    }
    sys_call1(SYS_close, file);
    return good;
}

// The file a mapping is of, even if its name is gone; only root may follow it.
static const char *mapped_file(struct symbols *symbols, const struct maps_module *module)
{
    char buf[64];
    struct fmt path;
    fmt_init(&path, buf, sizeof(buf));
    fmt_str(&path, "/proc/self/map_files/");
    uintptr_t ends[2] = {module->text, module->text_end};
    for (size_t i = 0; i < 2; i++) {
        char digits[20];
        struct fmt hex;
        fmt_init(&hex, digits, sizeof(digits));
        fmt_hex(&hex, ends[i]);
        fmt_str(&path, i == 0 ? "" : "-");
        fmt_str(&path, digits + 2); // without 0x
    }
    return region_text(symbols->region, buf, path.len);
}

static const char *module_path(struct symbols *symbols, struct maps_module *module)
{
    if (strcmp(module->path, "[vdso]") == 0) {
        return maps_bias(module, (const char *)module->image, module->image_bytes) ? module->path
                                                                                   : NULL;
    }
    if (module->inode == 0 || module->path[0] != '/') {
        return NULL;
    }
    if (module->main && module_try(symbols, module, "/proc/self/exe", true)) {
        return "/proc/self/exe";
    }
    if (!module->deleted && module_try(symbols, module, module->path, false)) {
        return module->path;
    }
    const char *path = mapped_file(symbols, module);
    return path != NULL && module_try(symbols, module, path, true) ? path : NULL;
}

// --- libbacktrace ---

static void on_error(void *data, const char *text, int error)
{
    (void)text;
    struct parts_env *env = data;
    env->failed |= error != -1; // -1: it has no debug information, or no symbols
}

static int on_line(void *data, uintptr_t pc, const char *file, int line, const char *function)
{
    (void)pc;
    struct parts_env *env = data;
    struct lookup *lookup = env->call;
    if (lookup->count == lookup->max || (function == NULL && file == NULL)) {
        return 0;
    }
    lookup->lines[lookup->count++] = (struct symbol_line){
        .function = function == NULL ? NULL : text_keep(lookup->symbols, function),
        .file = file == NULL ? NULL : text_keep(lookup->symbols, file),
        .line = line > 0 ? (uint32_t)line : 0,
    };
    return 0;
}

static void on_symbol(void *data, uintptr_t pc, const char *name, uintptr_t start, uintptr_t bytes)
{
    (void)pc;
    (void)bytes;
    struct parts_env *env = data;
    struct lookup *lookup = env->call;
    if (name != NULL) {
        lookup->name = text_keep(lookup->symbols, name);
        lookup->start = start;
    }
}

static struct backtrace_state *state_new(struct parts_env *env)
{
    env->failed = false;
    return backtrace_create_state(env->path, 0, on_error, env);
}

// Opens the module, with its DWARF if there is memory for it. What did not work out gives back its
// blocks, which is most of what it took.
static void module_open(struct symbols *symbols, struct maps_module *module)
{
    module->opened = true;
    struct parts_env *env = &symbols->env;
    const char *path = module_path(symbols, module);
    if (path == NULL) {
        return;
    }
    bool vdso = module->inode == 0;
    env->path = path;
    env->image = vdso ? (const char *)module->image : NULL;
    env->image_bytes = module->image_bytes;
    env->mapped = module->main;
    struct parts_block *mark = parts_mark(env);
    for (int plain = 0; plain < 2; plain++) {
        env->plain = plain != 0;
        struct lookup nothing = {.symbols = symbols};
        env->call = &nothing;
        module->state = state_new(env);
        if (module->state != NULL) {
            backtrace_pcinfo(module->state, module->text - module->bias, on_line, on_error, env);
        }
        if (!env->failed) {
            break;
        }
        module->state = NULL;
        parts_back(env, mark);
    }
    module->plain = env->plain;
}

// Damaged DWARF is noticed when a part of it is read: that address gets its name from the symbol
// table.
static void module_find(struct symbols *symbols, const struct maps_module *module, uintptr_t pc,
                        struct lookup *lookup)
{
    struct parts_env *env = &symbols->env;
    uintptr_t at = pc - module->bias;
    env->call = lookup;
    backtrace_pcinfo(module->state, at, on_line, on_error, env);
    backtrace_syminfo(module->state, at, on_symbol, on_error, env);
    if (lookup->name == NULL || lookup->max == 0) {
        return;
    }
    if (lookup->count == 0) {
        lookup->lines[lookup->count++] = (struct symbol_line){.function = lookup->name};
    } else if (lookup->lines[lookup->count - 1].function == NULL) {
        lookup->lines[lookup->count - 1].function = lookup->name;
    }
}

// Nobody knows a name: the function is called by its module and where it begins there, which the
// unwind tables say. It is not a name that pprof should keep if it finds a better one.
static void module_guess(struct symbols *symbols, struct maps_module *module, uintptr_t pc,
                         struct lookup *lookup)
{
    uintptr_t start = maps_function(&symbols->maps, module, pc, symbols->region);
    if (start == 0 || lookup->max == 0) {
        return;
    }
    char buf[160];
    struct fmt name;
    const char *slash = strrchr(module->path, '/');
    fmt_init(&name, buf, sizeof(buf));
    fmt_str(&name, slash == NULL ? module->path : slash + 1);
    fmt_char(&name, '+');
    fmt_hex(&name, start - module->bias);
    lookup->lines[0] = (struct symbol_line){.function = text_keep(symbols, buf)};
    lookup->count = lookup->lines[0].function != NULL;
    lookup->start = start - module->bias;
}

size_t symbols_find(struct symbols *symbols, uintptr_t pc, struct symbol_line *lines, size_t max,
                    uintptr_t *start)
{
    size_t index = symbols_mapping_of(symbols, pc);
    *start = 0;
    if (index == SIZE_MAX) {
        return 0;
    }
    struct maps_module *module = symbols->maps.modules[index];
    struct symbol_mapping *mapping = &symbols->maps.mappings[index];
    if (!module->opened) {
        module_open(symbols, module);
    }
    struct lookup lookup = {.symbols = symbols, .lines = lines, .max = max};
    if (module->state != NULL) {
        module_find(symbols, module, pc, &lookup);
    }
    bool guessed = lookup.count == 0;
    if (guessed) {
        module_guess(symbols, module, pc, &lookup);
    }
    *start = lookup.start == 0 ? 0 : lookup.start + module->bias;
    if (!mapping->asked) {
        mapping->asked = mapping->functions = mapping->files = mapping->lines = true;
    }
    mapping->functions &= !guessed;
    mapping->files &= !guessed;
    mapping->lines &= !guessed;
    for (size_t i = 0; i < lookup.count; i++) {
        mapping->functions &= lines[i].function != NULL;
        mapping->files &= lines[i].file != NULL;
        mapping->lines &= lines[i].line != 0;
    }
    return lookup.count;
}

// --- /debug/pprof/symbol ---

// Reads a number as Go's strconv.ParseUint(text, 0, 64) does, but for 0b and underscores; 0 if it
// is none.
static uint64_t address_parse(const char *text, size_t length)
{
    unsigned base = 10;
    if (length > 2 && text[0] == '0' && (text[1] | 0x20) == 'x') {
        base = 16;
        text += 2;
        length -= 2;
    } else if (length > 1 && text[0] == '0') {
        base = 8;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned digit = 99;
        if (text[i] >= '0' && text[i] <= '9') {
            digit = (unsigned)(text[i] - '0');
        } else if ((text[i] | 0x20) >= 'a' && (text[i] | 0x20) <= 'f') {
            digit = (unsigned)((text[i] | 0x20) - 'a') + 10;
        }
        if (digit >= base || sum > (UINT64_MAX - digit) / base) {
            return 0;
        }
        sum = sum * base + digit;
    }
    return sum;
}

static bool answer_one(struct symbols *symbols, uint64_t address, struct profile_sink *sink)
{
    struct symbol_line line = {.function = NULL};
    uintptr_t start;
    if (address == 0 || symbols_find(symbols, address, &line, 1, &start) == 0 ||
        line.function == NULL) {
        return true;
    }
    char buf[32];
    struct fmt text;
    fmt_init(&text, buf, sizeof(buf));
    fmt_hex(&text, address);
    fmt_char(&text, ' ');
    return sink->write(sink, buf, text.len) &&
           sink->write(sink, line.function, strlen(line.function)) && sink->write(sink, "\n", 1);
}

bool symbols_answer(const char *query, size_t length, struct profile_sink *sink)
{
    static const char first[] = "num_symbols: 1\n";
    if (!sink->write(sink, first, sizeof(first) - 1)) {
        return false;
    }
    struct region region;
    region_init(&region, symbols_limit(PROFILE_NAMES_BYTES));
    struct symbols *symbols = symbols_open(&region);
    bool good = true;
    while (symbols != NULL && good && length > 0) {
        const char *plus = memchr(query, '+', length);
        size_t count = plus == NULL ? length : (size_t)(plus - query);
        good = answer_one(symbols, address_parse(query, count), sink);
        count += plus != NULL;
        query += count;
        length -= count;
    }
    if (symbols != NULL) {
        symbols_close(symbols);
    }
    region_end(&region);
    return good;
}
