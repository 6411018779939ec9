// SPDX-License-Identifier: MIT
//
// apixx: operator new and delete in all forms, the new_handler, and exceptions through the heap.
// Go  none
#include <cstring>
#include <malloc.h>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "proglib.h"

static int handler_calls;
static void *reserve;

static void handler()
{
    handler_calls++;
    if (handler_calls == 3) {
        free(reserve);
        reserve = nullptr;
        std::set_new_handler(nullptr); // from now on new throws
    }
}

static void throwing_handler()
{
    handler_calls++;
    throw std::bad_alloc();
}

static volatile std::size_t too_much = static_cast<std::size_t>(PTRDIFF_MAX) - 100;

struct alignas(512) wide {
    char data[1024];
};

static bool is_aligned(void *p, std::size_t to)
{
    return reinterpret_cast<std::uintptr_t>(p) % to == 0;
}

static void forms()
{
    std::align_val_t al{256};
    auto nt = std::nothrow;

    for (std::size_t n = 0; n < 100000; n += 1 + n / 3) {
        void *p[8] = {::operator new(n),         ::operator new[](n),
                      ::operator new(n, nt),     ::operator new[](n, nt),
                      ::operator new(n, al),     ::operator new[](n, al),
                      ::operator new(n, al, nt), ::operator new[](n, al, nt)};
        for (int i = 0; i < 8; i++) {
            REQUIRE(p[i], "form %d of new gives nothing for %zu bytes", i, n);
            REQUIRE(is_aligned(p[i], i < 4 ? (n >= 16 ? 16 : 8) : 256), "form %d: alignment", i);
            REQUIRE(malloc_usable_size(p[i]) >= n, "form %d: size", i);
            std::memset(p[i], i, n);
        }
        ::operator delete(p[0]);
        ::operator delete[](p[1], n);
        ::operator delete(p[2], nt);
        ::operator delete[](p[3], nt);
        ::operator delete(p[4], al);
        ::operator delete[](p[5], n, al);
        ::operator delete(p[6], al, nt);
        ::operator delete[](p[7], al, nt);
        ::operator delete(::operator new(n), n);
        ::operator delete[](::operator new[](n));
        ::operator delete(::operator new(n, al), n, al);
        ::operator delete[](::operator new[](n, al), al);
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr, al);
    wide *w = new wide[3];
    REQUIRE(is_aligned(w, 512), "new of an over-aligned type");
    delete[] w;
}

template <class F> static bool throws_bad_alloc(F call)
{
    try {
        call();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

static void failing()
{
    std::align_val_t al{64};

    REQUIRE(throws_bad_alloc([] { return ::operator new(too_much); }), "new does not throw");
    REQUIRE(throws_bad_alloc([] { return ::operator new[](too_much); }), "new[] does not throw");
    REQUIRE(throws_bad_alloc([=] { return ::operator new(too_much, al); }), "aligned new");
    REQUIRE(throws_bad_alloc([] {
                std::string s(1000, 'x');
                s.reserve(too_much / 2);
            }),
            "std::string does not throw");
    REQUIRE(!::operator new(too_much, std::nothrow), "nothrow new gives something");
    REQUIRE(!::operator new[](too_much, al, std::nothrow), "nothrow aligned new gives something");
    reserve = malloc(1000);
    std::set_new_handler(handler);
    REQUIRE(throws_bad_alloc([] { return ::operator new(too_much); }), "new with a handler");
    REQUIRE(handler_calls == 3, "the new_handler was called %d times instead of 3", handler_calls);
    std::set_new_handler(throwing_handler);
    handler_calls = 0;
    REQUIRE(!::operator new(too_much, std::nothrow), "nothrow new with a handler that throws");
    REQUIRE(handler_calls == 1, "nothrow new called the handler %d times", handler_calls);
    std::set_new_handler(nullptr);
}

int main()
{
    std::vector<std::thread> threads;

    forms();
    failing();
    for (int i = 0; i < 4; i++) {
        threads.emplace_back(forms);
    }
    for (auto &thread : threads) {
        thread.join();
    }
    std::puts("ok");
    return 0;
}
