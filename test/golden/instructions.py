#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# Instructions of the fast path, counted by callgrind: malloc and free of one block, as delivered.
#
#   instructions.py LIBRARY PAIR OFFSETS GOLDEN COMPILER [--update]
#
# Model
#   pair runs the loop N times; callgrind counts only what happens inside the function asked for.
#   Two runs with different N, and the difference divided by the difference of N, leave out
#   everything that happens once. The count has no noise, so it is compared exactly: a change of the
#   fast path, for better or worse, shows in the diff of the golden file (--update writes it).
#   Lines "share" say what each feature costs; shares.py finds that in the disassembly, and what it
#   finds must add up to what was counted.
#   The golden file holds for the compiler and processor it names; with others only LIMITS count,
#   and only where gcc compiled for x86-64, for which they were set.

import os
import platform
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import shares  # noqa: E402

LIMITS = {"malloc": 24, "free": 36}
BYTES = [64, 1024]
RUNS = (1000, 21000)
SKIP = 77


def collected(library, pair, function, count, size):
    env = dict(os.environ, LD_PRELOAD=library)
    env["EBB"] = "profile_rate=0"  # the countdown runs all the same, and no sample disturbs
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no",
         "--toggle-collect=" + function, pair, str(count), str(size)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
        timeout=120)
    match = re.search(r"Collected : (\d+)", done.stdout)
    if done.returncode != 0 or not match:
        sys.exit("callgrind failed:\n" + done.stdout)
    return int(match.group(1))


def measure(library, pair):
    """{(function, bytes): instructions}; a part of a call per loop is kept as a fraction."""
    counts = {}
    for function in LIMITS:
        for size in BYTES:
            # malloc and ebb_malloc may be two names of one address; callgrind knows it by one.
            few, many = (max(collected(library, pair, prefix + function, n, size)
                             for prefix in ("", "ebb_")) for n in RUNS)
            counts[function, size] = round((many - few) / (RUNS[1] - RUNS[0]), 1)
    return counts


def text_of(key, counts, parts):
    lines = ["%s %s %d %s" % (key, function, size, counts[function, size])
             for function, size in sorted(counts, reverse=True)]
    lines += ["%s share %s %s %d" % (key, function, feature, count)
              for function, features in sorted(parts.items(), reverse=True)
              for feature, count in sorted(features.items())]
    return "".join(line + "\n" for line in lines)


def shares_of(library, offsets, counts):
    """{function: {feature: instructions}}, and whether they add up."""
    if platform.machine() != "x86_64":
        return {}, True
    fields = shares.read_offsets(offsets)
    parts = {}
    good = True
    for function in LIMITS:
        parts[function], listing = shares.shares(library, function, fields)
        if sum(parts[function].values()) != counts[function, BYTES[0]]:
            print("the disassembly of %s does not add up:" % function)
            for label, (mnemonic, operands) in listing:
                print("  %-9s %s %s" % (label, mnemonic, operands))
            good = False
    return parts, good


def golden_of(path, key):
    """The comment lines of the golden file and its lines for this compiler and processor."""
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    mine = [line for line in lines if line.startswith(key + " ")]
    others = [line for line in lines if not line.startswith(key + " ")]
    return others, "".join(mine)


def main(library, pair, offsets, golden, compiler, *options):
    if subprocess.run(["sh", "-c", "command -v valgrind"], stdout=subprocess.DEVNULL).returncode:
        print("skipped: valgrind is not installed")
        return SKIP
    key = "%s-%s" % (compiler, platform.machine())
    counts = measure(os.path.abspath(library), os.path.abspath(pair))
    if min(counts.values()) < 1:
        print("nothing was counted: %s" % counts)
        return 1
    parts, adds_up = shares_of(library, offsets, counts)
    text = text_of(key, counts, parts)
    print(text, end="")
    others, expected = golden_of(golden, key)
    if "--update" in options:
        with open(golden, "w", encoding="utf-8") as file:
            file.writelines(others)
            file.write(text)
        return 0
    failed = key.startswith("gcc") and not adds_up
    if key.startswith("gcc") and platform.machine() == "x86_64":
        for (function, size), count in counts.items():
            if count > LIMITS[function]:
                print("%s of %d bytes: %s instructions, at most %d" % (
                    function, size, count, LIMITS[function]))
                failed = True
    if expected and expected != text:
        print("golden file says:\n%s(instructions.py ... --update writes what is)" % expected)
        failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit("usage: instructions.py LIBRARY PAIR OFFSETS GOLDEN COMPILER [--update]")
    sys.exit(main(*sys.argv[1:]))
