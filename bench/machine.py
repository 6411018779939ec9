# SPDX-License-Identifier: MIT
"""Machine: what the numbers were measured on, and making it even before a series.

Go  none
"""

import mmap
import os
import platform
import subprocess
import time

# MADV_POPULATE_WRITE (Linux 5.14): touches pages without a Python loop.
MADV_POPULATE_WRITE = 23
TOUCH_CHUNK_BYTES = 64 << 20


def first_line(path, key=None):
    """first_line of a file, or the value behind 'key:' in it; None if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if key is None:
                    return line.strip()
                if line.startswith(key):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def meminfo_bytes(key):
    """meminfo_bytes of one line of /proc/meminfo."""
    text = first_line("/proc/meminfo", key)
    return int(text.split()[0]) * 1024 if text else 0


def limit_bytes():
    """limit_bytes of the memory cgroup at the mount's top, or None."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = first_line(path)
        if text and text.isdigit():
            return int(text)
    return None


def free_bytes():
    """free_bytes that a series may use: what is available, within the limit of the container."""
    available = meminfo_bytes("MemAvailable")
    limit = limit_bytes()
    return min(available, limit) if limit else available


def git_commit(folder):
    """git_commit of the sources, with '-dirty' when they differ; None outside a repository."""
    try:
        found = subprocess.run(["git", "-C", folder, "describe", "--always", "--dirty",
                                "--abbrev=40"], text=True, capture_output=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def facts(folder):
    """facts that belong to every result file."""
    return {
        "cpu": first_line("/proc/cpuinfo", "model name"),
        "processors": os.cpu_count(),
        "memory_bytes": meminfo_bytes("MemTotal"),
        "available_bytes": meminfo_bytes("MemAvailable"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "huge_pages": first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "overcommit": first_line("/proc/sys/vm/overcommit_memory"),
        "load_average": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": git_commit(folder),
    }


def touch_chunk(bytes_count):
    """touch_chunk maps and writes bytes_count and keeps them; returns the mapping."""
    area = mmap.mmap(-1, bytes_count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        area.madvise(MADV_POPULATE_WRITE)
    except OSError:
        for offset in range(0, bytes_count, mmap.PAGESIZE):
            area[offset] = 1
    return area


def touch_free_memory(limit, seconds):
    """touch_free_memory writes free pages once and gives them back; returns bytes touched.

    In a virtual machine the first touch of a page costs several times a later one, because the
    host has to find it: whoever ran first would pay for all. Done in a child, so that nothing of
    it stays here. Bounded in bytes (half of what is free) and in time.
    """
    wanted = min(limit, free_bytes() // 2)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        touched = 0
        kept = []
        try:
            os.close(reader)
            end = time.monotonic() + seconds
            while touched + TOUCH_CHUNK_BYTES <= wanted and time.monotonic() < end:
                kept.append(touch_chunk(TOUCH_CHUNK_BYTES))
                touched += TOUCH_CHUNK_BYTES
        except (OSError, MemoryError):
            pass
        finally:
            os.write(writer, str(touched).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return int(text or 0)
