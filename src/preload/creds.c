// SPDX-License-Identifier: MIT
//
// Calls that change what the kernel keeps for each thread. libc makes the threads it knows follow
// (setuid and its like), the kernel refuses while there is a second thread (unshare, setns), or a
// thread with a directory of its own would stay outside (chroot); Ebb's bare threads are unknown to
// libc. So they are sent away before the call; they come back, with the new credentials, when there
// is something to give back or somebody asks. prctl is watched for the system call filters that it
// announces (docs/design/003).
//
// Go  1.16 syscall AllThreadsSyscall solves the same for its own threads.
#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/base.h"
#include "boot/boot.h"

#define PUBLIC ATTR_EXPORT

// The next definition of the name behind ours, or NULL. Looked up at each call: they are rare.
static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

#define PASS(name, params, args)                                                                   \
    PUBLIC int name params;                                                                        \
    PUBLIC int name params                                                                         \
    {                                                                                              \
        int(*call) params = (int(*) params)next(#name);                                            \
        if (call == NULL) {                                                                        \
            errno = ENOSYS;                                                                        \
            return -1;                                                                             \
        }                                                                                          \
        boot_credentials_change();                                                                 \
        int ret = call args;                                                                       \
        boot_credentials_changed();                                                                \
        return ret;                                                                                \
    }

PASS(setuid, (uid_t id), (id))
PASS(setgid, (gid_t id), (id))
PASS(seteuid, (uid_t id), (id))
PASS(setegid, (gid_t id), (id))
PASS(setreuid, (uid_t real, uid_t effective), (real, effective))
PASS(setregid, (gid_t real, gid_t effective), (real, effective))
PASS(setresuid, (uid_t real, uid_t effective, uid_t saved), (real, effective, saved))
PASS(setresgid, (gid_t real, gid_t effective, gid_t saved), (real, effective, saved))
PASS(setgroups, (size_t count, const gid_t *list), (count, list))
PASS(initgroups, (const char *user, gid_t group), (user, group))
PASS(unshare, (int flags), (flags))
PASS(setns, (int fd, int type), (fd, type))
PASS(chroot, (const char *path), (path))

PUBLIC int prctl(int option, ...)
{
    va_list list;
    va_start(list, option);
    unsigned long a = va_arg(list, unsigned long);
    unsigned long b = va_arg(list, unsigned long);
    unsigned long c = va_arg(list, unsigned long);
    unsigned long d = va_arg(list, unsigned long);
    va_end(list);
    // A program without privileges must announce a filter by NO_NEW_PRIVS; libseccomp always does.
    if (option == PR_SET_SECCOMP || (option == PR_SET_NO_NEW_PRIVS && a != 0)) {
        boot_filter_coming();
    }
    int (*call)(int, ...) = (int (*)(int, ...))next("prctl");
    if (call == NULL) {
        errno = ENOSYS;
        return -1;
    }
    return call(option, a, b, c, d);
}
