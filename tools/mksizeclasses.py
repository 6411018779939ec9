#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes src/span/sizeclass_table.h: block size, magic number and span sizes of each size class.

Classes go by 16 bytes up to 128, then eight to a doubling up to 32 KiB, so that rounding up
wastes at most 1/9 above 128 bytes. Each class has a first span size (few blocks: small programs)
and a full one (once the class is populous); both leave at most an eighth of the span unused.

    mksizeclasses.py            print the table
    mksizeclasses.py --check F  compare with F; exit status 1 if they differ
"""
import sys

PAGE = 8192


def sizes():
    out = list(range(16, 129, 16))
    low = 128
    while low < 32768:
        out += [low + low // 8 * i for i in range(1, 9)]
        low *= 2
    return out


def pages(size, low, high, blocks):
    """The fewest pages with enough blocks and at most an eighth wasted, else the best."""
    fits = [n for n in range(low, high + 1) if n * PAGE // size >= blocks]
    good = [n for n in fits if (n * PAGE) % size * 8 <= n * PAGE]
    return good[0] if good else min(fits, key=lambda n: (n * PAGE) % size / n)


def full_pages(size):
    """Among spans of 64 KiB and more, the one that wastes least; up to 128 KiB for large blocks."""
    high = 8 if size <= 1024 else 16
    waste = {n: (n * PAGE) % size / (n * PAGE) for n in range(8, high + 1)}
    if size <= 4096:
        return min(waste, key=lambda n: (waste[n] > 0.02, n))
    return min(waste, key=lambda n: (waste[n], n))


def table():
    lines = ["// SPDX-License-Identifier: MIT", "//",
             "// Size classes, made by tools/mksizeclasses.py; a test makes them again"
             " and compares.",
             "//", "// X(class, block_bytes, magic, first_pages, full_pages)", "//",
             "// Go  runtime/sizeclasses.go (made by mksizeclasses.go).",
             "// clang-format off", "#define SIZECLASS_TABLE(X) \\"]
    all_sizes = sizes()
    for i, size in enumerate(all_sizes, 1):
        magic = (1 << 64) // size + 1
        first = pages(size, 1, 16, 8 if size <= 1024 else 4 if size <= 8192 else 2)
        end = "" if i == len(all_sizes) else " \\"
        full = max(full_pages(size), first)
        lines.append(f"    X({i}, {size}, 0x{magic:x}u, {first}, {full}){end}")
    return "\n".join(lines) + "\n"


def main():
    text = table()
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        with open(sys.argv[2], encoding="utf-8") as f:
            if f.read() != text:
                print(f"{sys.argv[2]}: not what tools/mksizeclasses.py makes", file=sys.stderr)
                return 1
        return 0
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
