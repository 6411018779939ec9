// SPDX-License-Identifier: MIT
//
// Ledger, reading: memory of a process.
//
// Go  none.
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "ledger/ledger_int.h"
#include "os/sys.h"

long ledger_read_memory(const struct ledger_reader *reader, void *to, uint64_t addr, size_t bytes)
{
    if (reader->pid == 0) {
        memcpy(to, (const void *)(uintptr_t)addr, bytes);
        return 0;
    }
    char *pos = to;
    while (bytes != 0) {
        struct iovec local = {pos, bytes};
        struct iovec remote = {(void *)(uintptr_t)addr, bytes};
        long n = sys_call6(SYS_process_vm_readv, reader->pid, SYS_ARG(&local), 1, SYS_ARG(&remote),
                           1, 0);
        if (n <= 0) {
            return n < 0 ? n : -EFAULT;
        }
        // Short where the kernel bounds one call, or where memory ends: the next call tells.
        pos += n;
        addr += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

long ledger_read_pieces(const struct ledger_reader *reader, void *to, const uint64_t *addrs,
                        size_t count, size_t bytes)
{
    struct iovec local = {to, count * bytes};
    struct iovec remote[PIECES_MAX];
    if (reader->pid == 0) {
        for (size_t i = 0; i < count; i++) {
            memcpy((char *)to + i * bytes, (const void *)(uintptr_t)addrs[i], bytes);
        }
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        remote[i] = (struct iovec){(void *)(uintptr_t)addrs[i], bytes};
    }
    long n = sys_call6(SYS_process_vm_readv, reader->pid, SYS_ARG(&local), 1, SYS_ARG(remote),
                       (long)count, 0);
    return n < 0 ? n : (size_t)n == count * bytes ? 0 : -EFAULT;
}
