// SPDX-License-Identifier: MIT
//
// Fmt: text built in a buffer of the caller, for the lines that a malloc has to print.
//
// Model
//   struct fmt is a window on memory of the caller. Always: buf[len] == 0 and len < cap (for cap >
//   0). What does not fit is dropped; then `truncated` is set and the text ends in "...", so that a
//   reader sees that something is missing. Appending to a truncated text does nothing.
//
// Locking
//   None. A struct fmt belongs to one thread. Every function here may be called in a signal
//   handler, before the constructors of libc and with any lock held: nothing allocates, looks at
//   the locale or touches errno.
//
// Flow
//   fmt_init -> fmt_str, fmt_u64, ... -> fmt_write (one system call, so that lines do not mix).
//
// Why this way
//   Not snprintf: it may allocate, reads the locale and is not safe in a signal handler.
//   One append function per type instead of a format string: a wrong type does not compile.
//
// Go       runtime/print.go printstring, printuint, printhex. Unlike Go: into a buffer, because a
//          line must reach stderr by one write to stay whole between threads.
// Tests    test/unit/fmt_test.c
#ifndef EBB_BASE_FMT_H
#define EBB_BASE_FMT_H

#include "base/base.h"

// FMT_LINE_BYTES is room for every line Ebb prints on its own.
#define FMT_LINE_BYTES 512

struct fmt {
    char *buf;
    size_t cap, len;
    bool truncated;
};

// fmt_init makes f an empty text in buf[cap]. cap counts the closing zero; with cap 0 all is
// dropped.
void fmt_init(struct fmt *f, char *buf, size_t cap);

void fmt_str(struct fmt *f, const char *text);
// fmt_strn appends count bytes of text, which need not end in a zero.
void fmt_strn(struct fmt *f, const char *text, size_t count);
void fmt_char(struct fmt *f, char c);
void fmt_u64(struct fmt *f, uint64_t value);
void fmt_i64(struct fmt *f, int64_t value);
// fmt_hex writes 0x and lower-case digits without leading zeros.
void fmt_hex(struct fmt *f, uint64_t value);
// fmt_bytes writes a size for people: "12 B", "384 KiB", "1.5 GiB": at most one decimal, rounded.
void fmt_bytes(struct fmt *f, uint64_t bytes);
// fmt_fixed writes value / 10^decimals with exactly that many decimals: (1234, 2) gives 12.34.
void fmt_fixed(struct fmt *f, uint64_t value, unsigned decimals);
// fmt_quoted appends text[count] in double quotes for a message: at most 40 bytes of it, and what
// is not printable ASCII as '?', so that a hostile value cannot write to the terminal.
void fmt_quoted(struct fmt *f, const char *text, size_t count);
// fmt_pad_to appends blanks up to column col (from 0) of the last line; nothing if it is there.
void fmt_pad_to(struct fmt *f, size_t col);

// fmt_write hands the text to fd: raw calls, EINTR repeated, errno untouched, no cancellation
// point. false: the kernel refused (closed descriptor, full pipe that does not block); the rest is
// lost.
bool fmt_write(const struct fmt *f, int fd);

#endif
