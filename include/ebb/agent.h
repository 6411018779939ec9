// SPDX-License-Identifier: MIT
//
// ebb/agent.h: the agent, which answers go tool pprof, gops, Prometheus and browsers.
//
//     ebb_agent_start("127.0.0.1:8090");
//     ebb_agent_start("gops");
//
//     go tool pprof http://127.0.0.1:8090/debug/pprof/heap
//     gops memstats PID
//
// Without a line of code: EBB=http=127.0.0.1:8090,gops=1, or `ebb attach PID` at a running process.
// Only root and the process's own user are answered, unless EBB=http_allow= says otherwise.
#ifndef EBB_AGENT_H
#define EBB_AGENT_H

#include <stddef.h>

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// What ebb_agent_address is asked for.
enum { EBB_AGENT_HTTP, EBB_AGENT_GOPS };

// ebb_agent_start opens a listener of the agent; HTTP and gops may be open at the same time.
//
// address   "127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT" (port 0: the kernel chooses),
//           "unix:/PATH" (%p in it becomes the process number; mode 0600), another address of this
//           machine if http_allow has "any", or "gops"; read only during the call
// Returns   0, also if it is open there already; -EINVAL if the address is none; -EBUSY if HTTP is
//           open at another address; -EPERM after a system call filter was announced, with
//           syscalls=core, in a set-user-ID program, and for an address that others can reach
//           without http_allow=any; -EAGAIN in a fork handler or while the program changes its
//           user; -ETIMEDOUT; -ENOMEM; or what socket(2), bind(2) and clone(2) say, as -EADDRINUSE
// Context   any thread; not from a signal handler. A forked child has no agent unless children=1
// Blocks    the caller until the listener is open, mostly below 1 ms
// Go        gops agent.Listen, http.ListenAndServe with net/http/pprof
// Since     0.1
EBB_API int ebb_agent_start(const char *address);

// ebb_agent_address tells where a listener is.
//
// kind      EBB_AGENT_HTTP or EBB_AGENT_GOPS
// buf       receives the address, as "127.0.0.1:40145" or "unix:/PATH", closed by a zero
// bytes     size of buf; 128 is always enough
// Returns   0; -ENOENT if it is not open; -ERANGE if buf is too small; -EINVAL
// Context   any thread
// Blocks    nothing
// Go        none: gops writes a file
// Since     0.1
EBB_API int ebb_agent_address(int kind, char *buf, size_t bytes);

// ebb_agent_stop closes all listeners and removes their files; requests under way end without an
// answer.
//
// Returns   nothing
// Context   any thread; not from a signal handler
// Blocks    the caller until the agent's threads have gone, at most 5 s
// Go        gops agent.Close
// Since     0.1
EBB_API void ebb_agent_stop(void);

#ifdef __cplusplus
}
#endif

// EBB_GO_BUILDINFO puts the note into a program by which the bare `gops` and `gops tree` know a Go
// program; without it they do not list the process, though `gops memstats PID` and the others work.
// Once, at file scope of the program itself (not of a library), without a semicolon:
//
//     EBB_GO_BUILDINFO("ebb" EBB_VERSION_STRING)
//
// version   a string literal of 1 to 127 bytes, shown in the list and by `go version FILE`
// Note      scanners of vulnerabilities then take the file for a Go program without modules
// Context   compile time, C11 or C++11, gcc or clang; needs no linking with Ebb
// Go        debug/buildinfo: 32 bytes of head, then strings with their length in front, here the
//           version and an empty module info; old readers want a byte behind the last one
// Since     0.1
#ifdef __cplusplus
#define EBB_BUILDINFO_ASSERT static_assert
#else
#define EBB_BUILDINFO_ASSERT _Static_assert
#endif
#define EBB_GO_BUILDINFO(version)                                                                  \
    EBB_BUILDINFO_ASSERT(sizeof(version) > 1 && sizeof(version) <= 128, "1 to 127 bytes");         \
    __attribute__((section(".go.buildinfo"), used, aligned(16))) static struct {                   \
        char head[32];                                                                             \
        char length;                                                                               \
        char text[sizeof(version) + 1];                                                            \
    } ebb_go_buildinfo = {"\xff Go buildinf:\010\002", sizeof(version) - 1, version};

#endif
