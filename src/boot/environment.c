// SPDX-License-Identifier: MIT
//
// The environment: EBB, GODEBUG and GOMEMLIMIT at start-up. Without getenv and setenv: a program
// may have its own, and nothing may be allocated here.
//
// Go  1.16 runtime1.go parsedebugvars, env_posix.go gogetenv; 1.19 mgcpacer.go readGOMEMLIMIT.
//     Unlike Go: a malformed GOMEMLIMIT costs a line and the program goes on without a limit.
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "boot/boot_int.h"

char *environment_find(char **entries, const char *name)
{
    size_t len = strlen(name);
    for (char **entry = entries; entry != NULL && *entry != NULL; entry++) {
        if (strncmp(*entry, name, len) == 0 && (*entry)[len] == '=') {
            return *entry + len + 1;
        }
    }
    return NULL;
}

static bool is_divider(char c)
{
    return c == ',' || c == ' ' || c == '\t';
}

static bool entry_is_inherited(const char *entry, size_t len)
{
    char name[64];
    size_t i = 0;
    while (i < len && i < sizeof(name) - 1 && entry[i] != '=') {
        name[i] = entry[i];
        i++;
    }
    name[i] = '\0';
    size_t index = option_index(name);
    // Who shuts a door or silences a printer means the children too; only opening stays here.
    bool off = len >= 4 && memcmp(entry + len - 4, "=off", 4) == 0;
    return index == SIZE_MAX || off || option_info(index).inherited;
}

// Appends the options of one sort to out, with commas between them and before the first.
static void entries_append(struct fmt *out, const char *value, bool inherited)
{
    const char *pos = value;
    while (*pos != '\0') {
        size_t len = 0;
        while (pos[len] != '\0' && !is_divider(pos[len])) {
            len++;
        }
        if (len != 0 && entry_is_inherited(pos, len) == inherited) {
            fmt_char(out, ',');
            fmt_strn(out, pos, len);
        }
        pos += len;
        pos += *pos != '\0';
    }
}

// Doors and printers are this process's, not its children's; but it may yet become another program
// by exec, as scripts that start services do. So they stay in the environment behind the number of
// the process, which a child has not (option_cut_foreign). The entry is replaced in the array:
// the program's memory has no room for it.
static void environment_mark_own(char **entries, const char *value)
{
    static char marked[1024];
    char own[512];
    struct fmt out;
    struct fmt rest;
    fmt_init(&rest, own, sizeof(own));
    entries_append(&rest, value, false);
    if (rest.len == 0) {
        return;
    }
    fmt_init(&out, marked, sizeof(marked));
    fmt_str(&out, "EBB=");
    size_t start = out.len;
    entries_append(&out, value, true);
    if (out.len != start) {
        memmove(marked + start, marked + start + 1,
                out.len - start); // the first comma, and the end
        out.len--;
        marked[out.len] = '\0';
    }
    size_t inherited_len = out.len;
    if (!rest.truncated) {
        fmt_str(&out, out.len != start ? "," : "");
        fmt_str(&out, OPTION_OWN_MARK);
        fmt_i64(&out, getpid());
        fmt_strn(&out, own, rest.len);
    }
    if (out.truncated || rest.truncated) {
        marked[inherited_len] = '\0';
    }
    for (char **entry = entries; *entry != NULL; entry++) {
        if (*entry + strlen("EBB=") == value) {
            *entry = marked;
        }
    }
}

void environment_read(char **entries)
{
    if (getauxval(AT_SECURE) != 0) {
        options_main.releaser = false; // no thread that setuid() would not reach
        options_main.control = OPTION_CONTROL_OFF;
        return;
    }
    char buf[2048];
    struct fmt errors;
    fmt_init(&errors, buf, sizeof(buf));
    char *ebb = environment_find(entries, "EBB");
    if (ebb != NULL) {
        option_cut_foreign(ebb, getpid());
    }
    struct options options;
    bool clean = option_parse(&options, NULL, environment_find(entries, "GODEBUG"), NULL);
    clean &= option_parse_gomemlimit(&options, environment_find(entries, "GOMEMLIMIT"), &errors);
    clean &= option_parse_over(&options, ebb, &errors);
    if (!clean) {
        fmt_write(&errors, STDERR_FILENO);
    }
    if (ebb != NULL && !options.children) {
        environment_mark_own(entries, ebb);
    }
    options_main = options;
}
