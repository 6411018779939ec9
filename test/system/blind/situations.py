# SPDX-License-Identifier: MIT
"""Processes with a known answer, made by somebody who had not seen the doctor's rules.

Each finding has a look-alike that is healthy, or whose medicine is another. starting.py says what
the fields mean, and starts them:

    with situations.start(situations.by_name('pool_burst')) as running:
        ask(running.pid)

What the figures claim is measured by run.py.
"""
from starting import JEMALLOC, MIMALLOC, Situation, TCMALLOC, VERDICTS, start

__all__ = ['SITUATIONS', 'Situation', 'VERDICTS', 'by_name', 'start']

GIVEN_BACK = (0.9, 1.1)
NOTHING = (-0.05, 0.12)
IN_USE = frozenset(VERDICTS) - {'healthy', 'unknown'}  # wrong where all memory is in use


def but(*ids):
    """Every verdict of a finding, and healthy, without those named."""
    return frozenset(VERDICTS) - {'unknown'} - set(ids)


NO_TABLES = 'whether a page of this allocator is in use stands only in its own tables'

SITUATIONS = (
    # ---- glibc ------------------------------------------------------------------------------
    Situation(
        'request_line', ('c:request', 'line'), 'kept', but('kept', 'pinned'),
        'one live block on top of 256 MiB of free ones: glibc trims only from the top, malloc_trim '
        'returns all of it; not a leak, though nothing shrinks by itself', mended=GIVEN_BACK),
    Situation(
        'request_tunable', ('c:request', 'all'), 'kept', but('kept'),
        'everything is freed, and the environment tells glibc to keep it',
        env={'MALLOC_TRIM_THRESHOLD_': '2000000000'}, mended=GIVEN_BACK),
    Situation(
        'request_huge', ('c:request', 'line'), 'kept', but('kept', 'pinned'),
        'request_line with a heap on huge pages: every byte of them was used, so it is not the '
        'huge pages', env={'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}, mended=GIVEN_BACK,
        shows={'Rss': (0.97, 1.1), 'AnonHugePages': (0.9, 1.05)}),
    Situation(
        'pool_burst', ('c:pool', 'burst'), 'arenas', but('arenas', 'kept'),
        'each arena of a pool of 24 threads keeps what a burst left in it',
        also={'kept': 'malloc_trim returns all of it, however many arenas there are'},
        mended=GIVEN_BACK),
    Situation(
        'pool_busy', ('c:pool', 'busy'), 'healthy', IN_USE,
        'as many arenas of the same size, every block in use', mended=NOTHING),
    Situation(
        'map_cleared', ('cc:cleared',), 'pinned', but('pinned'),
        'a map was cleared, small names between its nodes stay: one in every page; malloc_trim '
        'returns next to nothing', mended=NOTHING),
    Situation(
        'lost', ('c:traffic', 'lost'), 'leak', but('leak', 'growth'),
        'blocks whose address is forgotten, 6 MiB a second',
        also={'growth': 'without a search for pointers one sees only that it grows'},
        course='slope', watch_s=10),
    Situation(
        'list', ('c:traffic', 'list'), 'growth', but('growth'),
        'a list that only grows: every block can be reached, a leak scan finds nothing',
        course='slope', watch_s=10),
    Situation(
        'list_and_log', ('c:traffic', 'list', '{folder}/log'), 'growth',
        but('growth', 'pagecache'),
        'most of the cgroup is page cache, which the kernel will drop; what will fill it is the '
        'list', cgroup=True, shows={'Rss': (0.97, 1.1), 'cache': (2.4, 2.6)},
        course='slope', watch_s=10),
    Situation(
        'ring', ('c:traffic', 'ring'), 'healthy', IN_USE,
        'a full ring of blocks, as much traffic as in "list": it allocates and does not grow',
        course='plateau', watch_s=10),
    Situation(
        'warmup', ('c:traffic', 'warmup'), 'healthy', IN_USE,
        'a cache that becomes full while it is watched: the first seconds look like a leak, the '
        'rest is flat', shows={'Rss': (0.97, 1.3)}, course='step', watch_s=14),
    Situation(
        'wave', ('c:traffic', 'wave'), 'healthy', IN_USE,
        'a buffer of 240 MiB every four seconds, given back each time: two samples may well see '
        'it rise', shows={'Rss': (0.97, 3.2)}, course='wave', watch_s=14),
    Situation(
        'tide', ('c:traffic', 'tide'), 'growth', but('growth'),
        'the same wave over a list that grows: the peaks hide it, the floor rises 6 MiB a second',
        shows={'Rss': (0.97, 3.2)}, course='tide', watch_s=16),
    Situation(
        'tagged', ('c:tagged',), 'healthy', IN_USE,
        'a list in use whose links are tagged pointers: a search for plain ones calls it a leak',
        mended=NOTHING),
    # ---- memory that the program maps -------------------------------------------------------
    Situation(
        'madvised', ('c:lazyfree', 'lazy'), 'lazy', but('lazy', 'healthy'),
        'the program itself has used MADV_FREE: no allocator, no Go',
        shows={'Rss': (0.97, 1.1), 'LazyFree': (0.97, 1.01)}),
    Situation(
        'madvised_reused', ('c:lazyfree', 'reused'), 'healthy', IN_USE,
        'the same mapping after it was written again: nothing of it is free',
        shows={'Rss': (0.97, 1.1), 'LazyFree': (0, 0.01)}),
    Situation(
        'huge_sparse', ('c:huge', 'sparse'), 'hugepages', but('hugepages'),
        '10 KiB of data on 320 MiB of huge pages',
        shows={'Rss': (0.97, 1.1), 'AnonHugePages': (0.97, 1.01)}),
    Situation(
        'huge_full', ('c:huge', 'full'), 'healthy', IN_USE,
        'as many huge pages, full of data: splitting them would only cost time',
        shows={'Rss': (0.97, 1.1), 'AnonHugePages': (0.97, 1.01)}),
    Situation(
        'workers_shared', ('c:workers', 'shared'), 'shmem', but('shmem'),
        'anonymous shared memory between five processes: each has it resident, it is there once',
        shows={'Rss': (0.97, 1.1), 'Shared': (0.97, 1.1), 'Pss': (0.15, 0.3)}),
    Situation(
        'workers_forked', ('c:workers', 'forked'), 'healthy', IN_USE,
        "a worker's pages are the master's from before the fork: private memory, not shmem, of "
        'which hardly a page is its own',
        shows={'Rss': (0.97, 1.1), 'Anonymous': (0.97, 1.1), 'Pss': (0.15, 0.3)}),
    Situation(
        'memfd', ('c:files', 'memfd'), 'shmem', but('shmem'),
        'a memfd that was written and never mapped: no resident size shows it, and the cgroup '
        'counts it among its cache, where it cannot be dropped', cgroup=True,
        shows={'Rss': (0, 0.05), 'charge': (0.97, 1.15), 'shmem': (0.97, 1.05)}),
    Situation(
        'tmpfs', ('sh:tmpfs.sh', '{shm}'), 'shmem', but('shmem'),
        'a deleted file in a tmpfs, held open by a shell', cgroup=True,
        shows={'Rss': (0, 0.05), 'charge': (0.97, 1.15), 'shmem': (0.97, 1.05)}),
    Situation(
        'pipes', ('c:files', 'pipes'), 'shmem', but('shmem'),
        'full pipes that nobody reads: memory of the kernel, charged to the cgroup', cgroup=True,
        shows={'Rss': (0, 0.05), 'charge': (0.97, 1.15), 'kernel': (0.97, 1.15)}),
    Situation(
        'file_changed', ('c:files', 'private', '{folder}/data'), 'healthy', IN_USE,
        'a private mapping of a file with every page changed: it has the name of a file, but it '
        'is anonymous memory that cannot be dropped',
        shows={'Rss': (0.97, 1.1), 'Anonymous': (0.97, 1.1)}),
    Situation(
        'database', ('py:database.py', '{folder}'), 'pagecache', but('pagecache', 'healthy'),
        'sqlite has mapped its file and read it: resident pages of a file, clean',
        also={'healthy': 'a database that reads its file by a mapping uses what it has'},
        cgroup=True, shows={'Rss': (0.97, 1.15), 'File': (0.97, 1.1), 'cache': (0.97, 1.15)}),
    Situation(
        'logwriter', ('py:logwriter.py', '{folder}'), 'pagecache', but('pagecache', 'healthy'),
        'a log of 300 MiB in the cgroup of a process of 15 MiB', cgroup=True,
        shows={'Rss': (0, 0.1), 'charge': (0.97, 1.15), 'cache': (0.97, 1.05)}),
    # ---- threads ----------------------------------------------------------------------------
    Situation(
        'stacks_deep', ('c:stacks', 'deep'), 'stacks', but('stacks'),
        'each of 64 threads was 4 MiB deep in its stack once'),
    Situation(
        'stacks_reserved', ('c:stacks', 'reserved'), 'healthy', IN_USE,
        '200 threads, 1.6 GiB of stacks and a glibc arena each: address space; what is resident '
        "is the program's data", mended=NOTHING),
    # ---- other allocators -------------------------------------------------------------------
    Situation(
        'jemalloc_idle', ('c:burst', 'freed'), 'decay', but('decay'),
        'jemalloc returns freed pages over ten seconds, but only while it is called',
        preload=JEMALLOC, mended=(0.85, 1.1)),
    Situation(
        'jemalloc_live', ('c:burst', 'live'), 'healthy', IN_USE,
        'jemalloc, asleep too, and all of it in use', also={'unknown': NO_TABLES},
        preload=JEMALLOC, mended=NOTHING),
    Situation(
        'jemalloc_thinned', ('c:burst', 'thin'), 'pinned', but('pinned'),
        'one small block of 32 is left: no page of a slab is free, and no decay time helps',
        also={'unknown': NO_TABLES}, preload=JEMALLOC, mended=NOTHING),
    Situation(
        'jemalloc_never', ('c:burst', 'freed'), 'kept', but('kept'),
        'the environment forbids jemalloc to decay: its background thread runs and returns nothing',
        preload=JEMALLOC, mended=(0.85, 1.1),
        env={'MALLOC_CONF': 'background_thread:true,dirty_decay_ms:-1'}),
    Situation(
        'jemalloc_muzzy', ('c:burst', 'freed'), 'lazy', but('lazy', 'healthy'),
        'jemalloc\'s own thread has passed the freed pages on with MADV_FREE: no decay is missing',
        preload=JEMALLOC, shows={'Rss': (0.97, 1.2), 'LazyFree': (0.85, 1.05)},
        env={'MALLOC_CONF': 'background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:-1'},
        settle_s=2),
    Situation(
        'mimalloc_idle', ('c:burst', 'freed'), 'decay', but('decay', 'kept'),
        'mimalloc returns freed segments after a delay, which passes only when it is called',
        preload=MIMALLOC, mended=(0.85, 1.1)),
    Situation(
        'mimalloc_live', ('c:burst', 'live'), 'healthy', IN_USE,
        'mimalloc, asleep too, and all of it in use', also={'unknown': NO_TABLES},
        preload=MIMALLOC, mended=NOTHING),
    Situation(
        'tcmalloc_burst', ('c:burst', 'freed'), 'kept', but('kept'),
        'tcmalloc counts frees, not time: what it keeps it keeps until told to release',
        preload=TCMALLOC, mended=(0.85, 1.1)),
    Situation(
        'redis_full', ('redis:full',), 'healthy', IN_USE,
        'redis with data in it; jemalloc, mostly asleep, and nothing to mend',
        shows={'Rss': (0.9, 1.3)}),
    Situation(
        'redis_thinned', ('redis:thinned',), 'pinned', but('pinned'),
        'of 16 keys 15 have gone, spread over all slabs: redis is called all the time, decay runs',
        also={'unknown': NO_TABLES}, shows={'Rss': (0.7, 1.3)}),
    Situation(
        'redis_flushed', ('redis:flushed',), 'healthy', IN_USE,
        'FLUSHALL has everything returned by itself: a small process with a large peak (VmHWM)',
        shows={'Rss': (0, 0.25)}),
    # ---- run-times of languages -------------------------------------------------------------
    Situation(
        'python_live', ('py:objects.py', 'live'), 'healthy', IN_USE,
        "a large table of small objects, in Python's own arenas and in use",
        shows={'Rss': (0.97, 1.4)}),
    Situation(
        'python_thinned', ('py:objects.py', 'thin'), 'pinned', but('pinned'),
        "a few survivors hold every pool of Python's allocator; malloc_trim has nothing to do "
        'with its arenas', also={'unknown': NO_TABLES}, shows={'Rss': (0.97, 1.6)},
        mended=(-0.05, 0.2)),
    Situation(
        'python_zlib', ('py:compressors.py',), 'native', but('native'),
        'a thousand zlib streams: Python objects of 100 bytes with 256 KiB of C memory each'),
    Situation(
        'node_heap', ('node:heap.js',), 'healthy', IN_USE,
        "a session store in V8's heap, in use", shows={'Rss': (0.97, 1.6)}),
    Situation(
        'java_direct', ('java:Jvm', '-Xmx64m', '-XX:MaxDirectMemorySize=300m', 'direct'), 'native',
        but('native'), 'direct buffers, four times the Java heap', shows={'Rss': (0.97, 1.3)}),
    Situation(
        'java_live', ('java:Jvm', '-Xmx400m', 'live'), 'healthy', IN_USE,
        'records in the Java heap, in use', shows={'Rss': (0.97, 1.6)}),
    Situation(
        'java_kept', ('java:Jvm', '-Xms400m', '-Xmx400m', 'kept'), 'kept', but('kept'),
        'the Java heap is empty after a peak, and -Xms forbids to give it back',
        shows={'Rss': (0.97, 1.7)}),
    Situation(
        'go_mapped', ('go:goprog', 'mmap'), 'native', but('native'),
        "a cache of a Go program in mappings of its own: none of it in the runtime's figures"),
    Situation(
        'go_live', ('go:goprog', 'live'), 'healthy', IN_USE,
        'records in the Go heap, in use; what lies above them is the room of GOGC=100',
        shows={'Rss': (0.97, 2.1)}),
    Situation(
        'go_stacks', ('go:goprog', 'stacks'), 'stacks', but('stacks'),
        '8,000 goroutines with stacks of 32 KiB on four threads: the stacks lie in the Go heap'),
)


def by_name(name):
    return next(situation for situation in SITUATIONS if situation.name == name)
