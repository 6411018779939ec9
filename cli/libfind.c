// SPDX-License-Identifier: MIT
//
// Where is the library that belongs to this command? Beside it (a build tree), in the lib folder of
// the same prefix (an installation, wherever it was moved to), or where it was configured to be.
//
// Go  cmd/go/internal/cfg findGOROOT, which also starts from the executable.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define LIB_NAME "libebb.so"

// The build says where libraries are installed; without it, the place for local installations.
#ifndef EBB_LIBDIR
#define EBB_LIBDIR "/usr/local/lib"
#endif

// The folder Debian and its kin put between lib and the library.
#if defined(__x86_64__)
#define LIB_MULTIARCH "/../lib/x86_64-linux-gnu"
#elif defined(__aarch64__)
#define LIB_MULTIARCH "/../lib/aarch64-linux-gnu"
#endif

// self_dir returns the folder of the running executable, to be freed, or NULL without /proc.
static char *self_dir(void)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (len <= 0) {
        return NULL;
    }
    path[len] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return NULL;
    }
    *(slash == path ? slash + 1 : slash) = '\0';
    return strdup(path);
}

// lib_in returns the library's path inside base/below if it is readable there. The folder is made
// canonical, the name is kept: a symbolic link to a versioned file is what an upgrade moves.
static char *lib_in(const char *base, const char *below, FILE *tried)
{
    char *joined = NULL;
    if (asprintf(&joined, "%s%s", base, below) < 0) {
        return NULL;
    }
    char *dir = realpath(joined, NULL);
    fprintf(tried, "  %s/%s\n", dir != NULL ? dir : joined, LIB_NAME);
    free(joined);
    char *path = NULL;
    if (dir != NULL && asprintf(&path, "%s/%s", dir, LIB_NAME) < 0) {
        path = NULL;
    }
    free(dir);
    if (path != NULL && access(path, R_OK) != 0) {
        free(path);
        path = NULL;
    }
    return path;
}

char *lib_find(char **tried)
{
    static const char *const below[] = {"", LIB_MULTIARCH, "/../lib", "/../lib64"};
    char *text = NULL;
    size_t text_bytes = 0;
    FILE *log = open_memstream(&text, &text_bytes);
    if (log == NULL) {
        return NULL;
    }
    char *found = NULL;
    char *dir = self_dir();
    for (size_t i = 0; i < ARRAY_COUNT(below) && dir != NULL && found == NULL; i++) {
        found = lib_in(dir, below[i], log);
    }
    if (found == NULL) {
        found = lib_in(EBB_LIBDIR, "", log);
    }
    free(dir);
    fclose(log);
    if (text_bytes > 0) {
        text[text_bytes - 1] = '\0'; // the last line's newline
    }
    if (tried != NULL) {
        *tried = text;
    } else {
        free(text);
    }
    return found;
}
