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

// Rewrites the value in place, which can only make it shorter.
static void environment_keep_inherited(char *value)
{
    char *out = value;
    const char *pos = value;
    while (*pos != '\0') {
        size_t len = 0;
        while (pos[len] != '\0' && !is_divider(pos[len])) {
            len++;
        }
        if (len != 0 && entry_is_inherited(pos, len)) {
            if (out != value) {
                *out++ = pos[-1]; // the divider that stood before it
            }
            memmove(out, pos, len);
            out += len;
        }
        pos += len;
        pos += *pos != '\0';
    }
    *out = '\0';
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
    struct options options;
    bool clean = option_parse(&options, NULL, environment_find(entries, "GODEBUG"), NULL);
    clean &= option_parse_gomemlimit(&options, environment_find(entries, "GOMEMLIMIT"), &errors);
    clean &= option_parse_over(&options, ebb, &errors);
    if (!clean) {
        fmt_write(&errors, STDERR_FILENO);
    }
    if (ebb != NULL && !options.children) {
        environment_keep_inherited(ebb);
    }
    options_main = options;
}
