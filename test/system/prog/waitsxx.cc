// SPDX-License-Identifier: MIT
//
// C++'s mutex and condition_variable, waited for at known places: waitsxx FILE writes the block
// profile there.
//
// Go  none
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

#include <dlfcn.h>
#include <fcntl.h>

static std::mutex mutex;
static std::condition_variable condition;
static bool ready;

__attribute__((noinline)) static void cxx_want_lock()
{
    std::lock_guard<std::mutex> guard(mutex);
    asm volatile("");
}

__attribute__((noinline)) static void cxx_want_condition()
{
    std::unique_lock<std::mutex> guard(mutex);
    condition.wait(guard, [] { return ready; });
    asm volatile("");
}

__attribute__((noinline)) static void cxx_want_too_long()
{
    std::unique_lock<std::mutex> guard(mutex);
    condition.wait_for(guard, std::chrono::milliseconds(100), [] { return false; });
    asm volatile("");
}

int main(int argc, char **argv)
{
    auto write = reinterpret_cast<int (*)(const char *, int, int)>(
        dlsym(RTLD_DEFAULT, "ebb_profile_write"));
    if (argc != 2 || write == nullptr) {
        return 2;
    }
    mutex.lock();
    std::thread first([] {
        cxx_want_lock();
        cxx_want_condition();
        cxx_want_too_long();
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    mutex.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    {
        std::lock_guard<std::mutex> guard(mutex);
        ready = true;
        condition.notify_one();
    }
    first.join();
    int fd = open(argv[1], O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    return fd >= 0 && write("block", fd, 0) == 0 ? 0 : 1;
}
