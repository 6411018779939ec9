// SPDX-License-Identifier: MIT
//
// leaks SHAPE MIB [run]: blocks that a pointer leads to, or none does, for the doctor's leak check.
// It says "ready lost=BYTES held=BYTES" (of MIB: the sizes asked for) and waits for the end of its
// standard input; with "run" another thread works meanwhile, with blocks of its own.
//
// Lost: forget (pointers thrown away), beheaded (a list whose head is overwritten), ring (blocks
//   that only lead to each other), self (each leads to itself alone), half (every second one of an
//   array), large (blocks of 1 MiB, forgotten), offlist (leaked, while thread caches are full).
// Held: list, tree, hashmap, interior (by their middle only), last (by one past their end), tls,
//   stack (of a thread that waits), argument (of a system call), tagged (with bits at the top and
//   the bottom), mapped (from memory that was mapped), shared (from shared memory), epoll (by the
//   kernel alone), cache (freed, on lists of threads), moved (a list handed round all the time),
//   grown (an array that is made larger all the time), queues (all handed on all the time).
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <string>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unordered_map>
#include <vector>

struct node {
    node *next;
    char text[496];
};

static const size_t node_bytes = sizeof(node);
static node *volatile head;
static void *volatile kept;
static std::unordered_map<uint64_t, std::string> *table;
static thread_local node *own;
static pthread_barrier_t ready;
static std::atomic<node *> slots[2];

static node *node_new(node *next)
{
    node *n = static_cast<node *>(malloc(node_bytes));
    memset(n, 5, node_bytes);
    n->next = next;
    return n;
}

static __attribute__((noinline)) node *list_new(size_t count)
{
    node *list = nullptr;
    for (size_t i = 0; i < count; i++) {
        list = node_new(list);
    }
    return list;
}

// Old values of pointers lie on the stack and in registers: this overwrites them.
static __attribute__((noinline)) void stack_clean()
{
    volatile char room[32768];
    for (size_t i = 0; i < sizeof(room); i++) {
        room[i] = 1;
    }
}

static void *waits_with_stack(void *arg)
{
    node *volatile here[1] = {list_new(reinterpret_cast<size_t>(arg))};
    pthread_barrier_wait(&ready);
    pause();
    return here[0];
}

static void *waits_with_tls(void *arg)
{
    own = list_new(reinterpret_cast<size_t>(arg));
    stack_clean();
    pthread_barrier_wait(&ready);
    pause();
    return own;
}

// The list hangs on the buffer of read(2), and on nothing else: read() would keep a copy on the
// stack.
static void *waits_with_argument(void *arg)
{
    int ends[2];
    // The loader binds syscall() at its first call, and keeps the arguments on the stack for that.
    if (pipe(ends) != 0 || syscall(SYS_getpid) != getpid()) {
        abort();
    }
    node *list = list_new(reinterpret_cast<size_t>(arg));
    pthread_barrier_wait(&ready);
    stack_clean();
    return reinterpret_cast<void *>(syscall(SYS_read, ends[0], list, sizeof(*list)));
}

static __attribute__((noinline)) void cache_fill()
{
    std::vector<void *> blocks;
    for (size_t size = 24; size <= 1032; size += 16) {
        for (size_t i = 0; i < 7; i++) {
            blocks.push_back(malloc(size));
        }
    }
    for (void *block : blocks) {
        free(block);
    }
}

static void *fills_cache(void *arg)
{
    cache_fill();
    stack_clean();
    pthread_barrier_wait(&ready);
    pause();
    return arg;
}

static void *works(void *)
{
    std::vector<std::unique_ptr<char[]>> blocks(1000);
    for (size_t i = 0;; i++) {
        blocks[i * 7919 % 1000].reset(new char[16 + i * 31 % 2000]);
        if (i % 64 == 0) {
            usleep(100);
        }
    }
}

// The list lies in one slot, in the other, or in a register in between.
static void *hands_round(void *)
{
    for (;;) {
        node *list = slots[0].exchange(nullptr);
        slots[1].store(list);
        list = slots[1].exchange(nullptr);
        slots[0].store(list);
        usleep(1);
    }
}

static void *grows(void *)
{
    size_t cap = 40000;
    node **array = static_cast<node **>(calloc(cap, sizeof(*array)));
    for (size_t i = 0; head != nullptr && i < cap; i++) {
        array[i] = head;
        head = array[i]->next;
        array[i]->next = nullptr;
    }
    for (;; cap += 4096) {
        array = static_cast<node **>(realloc(array, cap * sizeof(*array)));
        usleep(200);
        cap = cap > 4000000 ? 40000 : cap;
    }
}

// Every block is handed from one queue to another many times while it is looked for.
static std::deque<node *> queues[2];
static std::mutex queue_locks[2];

static void *hands_on(void *arg)
{
    size_t from = reinterpret_cast<size_t>(arg);
    for (;;) {
        node *n = nullptr;
        {
            std::lock_guard<std::mutex> guard(queue_locks[from]);
            if (!queues[from].empty()) {
                n = queues[from].front();
                queues[from].pop_front();
            }
        }
        if (n != nullptr) {
            std::lock_guard<std::mutex> guard(queue_locks[1 - from]);
            queues[1 - from].push_back(n);
        }
    }
}

static void start(void *(*run)(void *), size_t count)
{
    pthread_t thread;
    pthread_barrier_init(&ready, nullptr, 2);
    if (pthread_create(&thread, nullptr, run, reinterpret_cast<void *>(count)) != 0) {
        abort();
    }
    pthread_barrier_wait(&ready);
}

static void begin(void *(*run)(void *), size_t arg = 0)
{
    pthread_t thread;
    if (pthread_create(&thread, nullptr, run, reinterpret_cast<void *>(arg)) != 0) {
        abort();
    }
}

static __attribute__((noinline)) bool lose(const std::string &shape, size_t count)
{
    if (shape == "forget") {
        for (size_t i = 0; i < count; i++) {
            node_new(nullptr);
        }
    } else if (shape == "beheaded") {
        head = list_new(count);
        head = nullptr;
    } else if (shape == "ring") {
        node *first = node_new(nullptr);
        node *last = first;
        for (size_t i = 1; i < count; i++) {
            last = node_new(last);
        }
        first->next = last;
    } else if (shape == "self") {
        for (size_t i = 0; i < count; i++) {
            node *n = node_new(nullptr);
            n->next = n;
        }
    } else if (shape == "half") {
        node **array = static_cast<node **>(calloc(count, sizeof(*array)));
        for (size_t i = 0; i < count; i++) {
            node *n = node_new(nullptr);
            array[i] = i % 2 == 0 ? n : nullptr;
        }
        kept = array;
    } else if (shape == "large") {
        for (size_t i = 0; i < count * node_bytes >> 20; i++) {
            memset(malloc(1 << 20), 3, 1 << 20);
        }
    } else if (shape == "offlist") {
        for (size_t i = 0; i < 8; i++) {
            start(fills_cache, 0);
        }
        for (size_t i = 0; i < count; i++) {
            node_new(nullptr);
        }
    } else {
        return false;
    }
    return true;
}

static void *array_of(size_t count, void *memory, ptrdiff_t off, uint64_t tag)
{
    auto *array = static_cast<uint64_t *>(memory);
    for (size_t i = 0; i < count; i++) {
        auto addr = reinterpret_cast<uint64_t>(node_new(nullptr)) + static_cast<uint64_t>(off);
        array[i] = addr | tag;
    }
    return memory;
}

static void *map(size_t bytes, int flags)
{
    return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
}

static node *tree_new(size_t depth, size_t *left)
{
    node *n = nullptr;
    if (*left != 0 && depth != 0) {
        (*left)--;
        n = node_new(tree_new(depth - 1, left));
        node *other = tree_new(depth - 1, left);
        memcpy(n->text + 8, &other, sizeof(other));
    }
    return n;
}

static void epoll_hold(size_t count)
{
    int poll = epoll_create1(0);
    for (size_t i = 0; i < 8; i++) {
        epoll_event event = {};
        event.data.ptr = list_new(count / 8);
        epoll_ctl(poll, EPOLL_CTL_ADD, eventfd(0, 0), &event);
    }
}

static __attribute__((noinline)) bool hold(const std::string &shape, size_t count)
{
    if (shape == "list") {
        head = list_new(count);
    } else if (shape == "tree") {
        head = tree_new(40, &count);
    } else if (shape == "hashmap") {
        table = new std::unordered_map<uint64_t, std::string>;
        for (size_t i = 0; i < count; i++) {
            (*table)[i * 0x9e3779b97f4a7c15] = std::string(400, 'x');
        }
    } else if (shape == "interior") {
        kept = array_of(count, malloc(count * 8), 100, 0);
    } else if (shape == "last") {
        kept = array_of(count, malloc(count * 8), node_bytes, 0);
    } else if (shape == "tagged") {
        kept = array_of(count, malloc(count * 8), 0, UINT64_C(0xfffa000000000005));
    } else if (shape == "mapped") {
        kept = array_of(count, map(count * 8, MAP_PRIVATE), 0, 0);
    } else if (shape == "shared") {
        kept = array_of(count, map(count * 8, MAP_SHARED), 0, 0);
    } else if (shape == "tls") {
        start(waits_with_tls, count);
    } else if (shape == "stack") {
        start(waits_with_stack, count);
    } else if (shape == "argument") {
        start(waits_with_argument, count);
    } else if (shape == "epoll") {
        epoll_hold(count);
    } else if (shape == "cache") {
        head = list_new(count);
        for (size_t i = 0; i < 32; i++) {
            start(fills_cache, 0);
        }
    } else if (shape == "moved") {
        slots[0] = list_new(count);
        begin(hands_round);
    } else if (shape == "queues") {
        for (size_t i = 0; i < 2000; i++) {
            queues[i % 2].push_back(list_new(count / 2000));
        }
        begin(hands_on, 0);
        begin(hands_on, 1);
    } else if (shape == "grown") {
        head = list_new(count);
        begin(grows);
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "leaks SHAPE MIB [run]\n");
        return 2;
    }
    size_t bytes = static_cast<size_t>(atol(argv[2])) << 20;
    size_t count = bytes / node_bytes;
    bool lost = lose(argv[1], count);
    if (!lost && !hold(argv[1], count)) {
        fprintf(stderr, "leaks: no shape %s\n", argv[1]);
        return 2;
    }
    if (argc > 3) {
        begin(works);
    }
    stack_clean();
    size_t lost_bytes = !lost ? 0 : strcmp(argv[1], "half") == 0 ? bytes / 2 : bytes;
    printf("ready lost=%zu held=%zu\n", lost_bytes, bytes - lost_bytes);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
