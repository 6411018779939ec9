// SPDX-License-Identifier: MIT
//
// cxx-shared: what a helper thread of the heap costs a program that has no thread of its own. As
// soon as a second thread exists, libstdc++ counts shared_ptr references atomically and stdio locks
// its streams. So both are timed before and after a peak that a heap may react to with a thread.
//
// Model
//   before   shared_ptr copies, putc and iostream to /dev/null, in a fresh process
//   peak     128 MiB of blocks allocated and freed, then a rest: long enough for a helper to start
//   after    the same loops again; "threads" says how many threads the process then had
//
// Go  none
#include "common/bench.h"

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <memory>
#include <time.h>
#include <string>
#include <vector>

namespace {

struct loops {
    double shared_ptr_ns;
    double putc_ns;
    double iostream_ns;
    double seconds;
};

double per_operation(uint64_t start_ns, uint64_t count)
{
    return static_cast<double>(bench_now_ns() - start_ns) / static_cast<double>(count);
}

double time_shared_ptr(uint64_t count)
{
    auto original = std::make_shared<uint64_t>(7);
    uint64_t sum = 0;
    uint64_t start_ns = bench_now_ns();
    for (uint64_t i = 0; i < count; i++) {
        std::shared_ptr<uint64_t> copy = original;
        __asm__ volatile("" : : "r"(copy.get()) : "memory");
        sum += *copy;
    }
    double ns = per_operation(start_ns, count);
    if (sum != count * 7 || original.use_count() != 1) {
        bench_fail("a shared_ptr lost its count");
    }
    return ns;
}

double time_putc(uint64_t count)
{
    FILE *sink = std::fopen("/dev/null", "w");
    if (sink == nullptr) {
        bench_fail("/dev/null cannot be opened");
    }
    uint64_t start_ns = bench_now_ns();
    for (uint64_t i = 0; i < count; i++) {
        putc(static_cast<int>('a' + i % 26), sink);
    }
    double ns = per_operation(start_ns, count);
    if (std::fclose(sink) != 0) {
        bench_fail("/dev/null cannot be written");
    }
    return ns;
}

double time_iostream(uint64_t count)
{
    std::ofstream sink("/dev/null");
    uint64_t start_ns = bench_now_ns();
    for (uint64_t i = 0; i < count; i++) {
        sink << i << '\n';
    }
    double ns = per_operation(start_ns, count);
    sink.close();
    if (!sink) {
        bench_fail("/dev/null cannot be written");
    }
    return ns;
}

loops run_loops(uint64_t count)
{
    uint64_t start_ns = bench_now_ns();
    loops result = {};
    result.shared_ptr_ns = time_shared_ptr(count);
    result.putc_ns = time_putc(count);
    result.iostream_ns = time_iostream(count / 10);
    result.seconds = static_cast<double>(bench_now_ns() - start_ns) / 1e9;
    return result;
}

void make_peak(const bench &bench, uint64_t bytes)
{
    bench_actor actor = bench_actor_make(&bench, 1);
    std::vector<void *> blocks;
    for (uint64_t made_bytes = 0; made_bytes < bytes;) {
        size_t size = bench_size_log(&actor.random_state, 4, 12);
        blocks.push_back(bench_make(&actor, size));
        made_bytes += size;
    }
    for (void *block : blocks) {
        bench_drop(&actor, block);
    }
    uint64_t operation_count = 0;
    bench_settle(&actor, 1, &operation_count);
}

unsigned long thread_count()
{
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word) {
        if (word == "Threads:") {
            unsigned long count = 0;
            status >> count;
            return count;
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv)
{
    struct bench bench = bench_open("cxx-shared", argc, argv, 1);
    uint64_t count = bench_pick(&bench, 10000, 2000000, 20000000);
    uint64_t peak_bytes = bench_pick(&bench, 1 << 20, 128 << 20, 128 << 20);
    loops before = run_loops(count);
    make_peak(bench, peak_bytes);
    // A helper that waits for a second of quiet before it starts has started after 1.5 s.
    uint64_t rest_ms = bench_pick(&bench, 1, 1500, 1500);
    struct timespec rest = {static_cast<time_t>(rest_ms / 1000),
                            static_cast<long>(rest_ms % 1000) * 1000000L};
    nanosleep(&rest, nullptr);
    unsigned long threads = thread_count();
    loops after = run_loops(count);
    std::printf("{\"name\": \"cxx-shared\", \"seconds\": %.6f, \"operations\": %" PRIu64
                ", \"peak_rss_bytes\": %" PRIu64 ", \"checksum\": \"%016" PRIx64
                "\", \"malloc_from\": \"%s\", \"threads\": %lu, "
                "\"shared_ptr_before_ns\": %.3f, \"shared_ptr_after_ns\": %.3f, "
                "\"putc_before_ns\": %.3f, \"putc_after_ns\": %.3f, "
                "\"iostream_before_ns\": %.3f, \"iostream_after_ns\": %.3f}\n",
                after.seconds, count, bench_vmhwm_bytes(), count, bench_malloc_origin(), threads,
                before.shared_ptr_ns, after.shared_ptr_ns, before.putc_ns, after.putc_ns,
                before.iostream_ns, after.iostream_ns);
    return std::fflush(stdout) == 0 ? 0 : 1;
}
