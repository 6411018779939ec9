// SPDX-License-Identifier: MIT
//
// Fmt: text built in a buffer of the caller (fmt.h). fmt_write is in fatal.c, the one file of base
// that makes system calls.
//
// Go  runtime/print.go.
#include "base/fmt.h"

#include <string.h>

// FMT_QUOTED_BYTES bounds how much of a strange value a message repeats.
#define FMT_QUOTED_BYTES 40

void fmt_init(struct fmt *f, char *buf, size_t cap)
{
    f->buf = buf;
    f->cap = cap;
    f->len = 0;
    f->truncated = false;
    if (cap > 0) {
        buf[0] = '\0';
    }
}

// Marks the text as cut: its last bytes become dots, as many of three as there is room for.
static void mark_truncated(struct fmt *f)
{
    f->truncated = true;
    if (f->cap == 0) {
        return;
    }
    f->len = f->cap - 1;
    size_t dots = min_size(3, f->len);
    memset(f->buf + f->len - dots, '.', dots);
    f->buf[f->len] = '\0';
}

void fmt_strn(struct fmt *f, const char *text, size_t count)
{
    if (f->truncated || count == 0) {
        return;
    }
    size_t room = f->cap == 0 ? 0 : f->cap - 1 - f->len;
    size_t take = min_size(count, room);
    if (take != 0) {
        memcpy(f->buf + f->len, text, take);
        f->len += take;
        f->buf[f->len] = '\0';
    }
    if (take < count) {
        mark_truncated(f);
    }
}

void fmt_str(struct fmt *f, const char *text)
{
    fmt_strn(f, text, strlen(text));
}

void fmt_char(struct fmt *f, char c)
{
    fmt_strn(f, &c, 1);
}

#define DECIMAL_DIGITS 20 // of 2^64 - 1

// Writes the digits of value to the end of the array and returns where they begin.
static size_t decimal_digits(char digits[static DECIMAL_DIGITS], uint64_t value)
{
    size_t at = DECIMAL_DIGITS;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return at;
}

void fmt_u64(struct fmt *f, uint64_t value)
{
    char digits[DECIMAL_DIGITS];
    size_t at = decimal_digits(digits, value);
    fmt_strn(f, digits + at, sizeof digits - at);
}

void fmt_i64(struct fmt *f, int64_t value)
{
    uint64_t magnitude = (uint64_t)value;
    if (value < 0) {
        fmt_char(f, '-');
        magnitude = 0 - magnitude;
    }
    fmt_u64(f, magnitude);
}

void fmt_hex(struct fmt *f, uint64_t value)
{
    char digits[16];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[value % 16];
        value /= 16;
    } while (value != 0);
    fmt_str(f, "0x");
    fmt_strn(f, digits + at, sizeof digits - at);
}

void fmt_bytes(struct fmt *f, uint64_t bytes)
{
    static const char units[][4] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    uint64_t scale = 1;
    while (unit + 1 < ARRAY_COUNT(units) && bytes / scale >= 1024) {
        unit++;
        scale *= 1024;
    }
    // The rest is below 2^60, ten times it below 2^64.
    uint64_t tenths = bytes / scale * 10 + (bytes % scale * 10 + scale / 2) / scale;
    if (tenths >= 10240 && unit + 1 < ARRAY_COUNT(units)) {
        tenths = 10; // 1023.96 KiB rounds up to the next unit
        unit++;
    }
    fmt_u64(f, tenths / 10);
    if (tenths % 10 != 0) {
        fmt_char(f, '.');
        fmt_char(f, (char)('0' + tenths % 10));
    }
    fmt_char(f, ' ');
    fmt_str(f, units[unit]);
}

void fmt_fixed(struct fmt *f, uint64_t value, unsigned decimals)
{
    char digits[DECIMAL_DIGITS];
    size_t at = decimal_digits(digits, value);
    size_t count = sizeof digits - at;
    size_t whole = count > decimals ? count - decimals : 0;
    if (whole == 0) {
        fmt_char(f, '0');
    }
    fmt_strn(f, digits + at, whole);
    if (decimals == 0) {
        return;
    }
    fmt_char(f, '.');
    for (size_t zeros = count; zeros < decimals && !f->truncated; zeros++) {
        fmt_char(f, '0');
    }
    fmt_strn(f, digits + at + whole, count - whole);
}

void fmt_quoted(struct fmt *f, const char *text, size_t count)
{
    size_t shown = min_size(count, FMT_QUOTED_BYTES);
    fmt_char(f, '"');
    for (size_t i = 0; i < shown; i++) {
        fmt_char(f, text[i] >= ' ' && text[i] <= '~' ? text[i] : '?');
    }
    fmt_str(f, shown < count ? "...\"" : "\"");
}

void fmt_pad_to(struct fmt *f, size_t col)
{
    size_t start = f->len;
    while (start > 0 && f->buf[start - 1] != '\n') {
        start--;
    }
    size_t width = 0;
    for (size_t i = start; i < f->len; i++) {
        // Continuation bytes of UTF-8 (10xxxxxx) take no column.
        width += ((unsigned char)f->buf[i] & 0xc0) != 0x80;
    }
    for (; width < col && !f->truncated; width++) {
        fmt_char(f, ' ');
    }
}
