# SPDX-License-Identifier: MIT
"""Cases: the table of what is run. One line here makes a row of the tables.

Parameters are part of the programs, committed before the first tuning; a case changes only
together with a new run of every peer, and a case that is lost stays.

Go  none
"""


class Case:
    """One workload: the program in the folder of bench binaries and its arguments."""

    def __init__(self, name, program, threads=None, kind="macro", once_in_quick=False):
        self.name = name
        # Cases that rest or wait for seconds run in the first round only when time is short.
        self.once_in_quick = once_in_quick
        self.program = program
        self.threads = threads
        self.kind = kind

    def arguments(self, size):
        """arguments of the program for size 'smoke', 'quick' or 'full'."""
        result = [f"--{size}"]
        if self.threads is not None:
            result += ["--threads", str(self.threads)]
        return result

    def is_single_threaded(self):
        """is_single_threaded decides about pinning: one thread stays on one processor."""
        return self.threads == 1


# kind: macro counts in the geometric means, micro has a table of its own.
CASES = [
    Case("cfrac", "cfrac", 1),
    Case("espresso", "espresso", 1),
    Case("glibc-simple", "glibc_simple", 1),
    Case("glibc-thread", "glibc_thread", 2),
    Case("alloc-test-1", "alloc_test", 1),
    Case("alloc-test-4", "alloc_test", 4),
    Case("larson", "larson", 4),
    Case("mstress", "mstress", 4),
    Case("mstress-8", "mstress", 8),
    Case("xmalloc", "xmalloc", 4),
    Case("rptest", "rptest", 4),
    Case("sh6", "sh6", 4),
    Case("sh8", "sh8", 4),
    Case("sh8-8", "sh8", 8),
    Case("cache-scratch", "cache_scratch", 2),
    Case("cache-thrash", "cache_thrash", 2),
    Case("large", "large", 1),
    Case("realloc-grow", "realloc_grow", 1),
    # Not pinned: its children shall run where the kernel puts them.
    Case("startup", "startup"),
    Case("redis", None),
    Case("malloc-free", "malloc_free", 1, kind="micro"),
    Case("remote-free", "remote_free", 2, kind="micro"),
    Case("cxx-shared", "cxx_shared", 1, kind="micro", once_in_quick=True),
    Case("latency", "latency", 2, kind="micro", once_in_quick=True),
]


class Curve:
    """One panel of the picture: what blocks, how many threads, how many percent survive."""

    def __init__(self, blocks, threads, survivor_percent):
        self.blocks = blocks
        self.threads = threads
        self.survivor_percent = survivor_percent
        self.name = f"{blocks}-{threads}t-{survivor_percent}%"

    def arguments(self, mib, idle_ms):
        """arguments of the curve program."""
        return ["--mib", str(mib), "--blocks", self.blocks, "--threads", str(self.threads),
                "--survivors", str(self.survivor_percent), "--idle-ms", str(idle_ms)]


CURVES_FULL = [Curve(blocks, threads, percent)
               for blocks in ("small", "mixed", "big")
               for threads in (1, 8)
               for percent in (0, 1, 10)]

CURVES_QUICK = [
    Curve("mixed", 1, 0),
    Curve("mixed", 8, 0),
    Curve("mixed", 1, 1),
    Curve("small", 8, 1),
    Curve("small", 1, 10),
    Curve("big", 8, 0),
]

# Blocks of 16-1024 bytes, of 64, and of 4-256 KiB, one in a hundred kept at random.
CURVES_SURVIVORS = [Curve(blocks, 1, 1) for blocks in ("mixed", "word", "big")]


def choose(only):
    """choose returns the cases named in only, all of them for an empty list."""
    known = {case.name: case for case in CASES}
    for name in only:
        if name not in known:
            raise ValueError(f"--only: no case '{name}'; known: {', '.join(known)}")
    return [case for case in CASES if not only or case.name in only]
