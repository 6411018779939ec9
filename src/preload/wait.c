// SPDX-License-Identifier: MIT
//
// The names by which programs wait and start threads. Each is a jump through a word: to libc's
// function while the profiles block and mutex are off, to one of ours while one of them is on. Only
// in libebb.so, not in libebb.a.
//
// Model
//   next   libc's function: the next of that name behind ours, found once.
//   slot   where the exported name jumps to: at first to a function that finds all next ones (a
//          program's constructor that runs before ours), then to next, or to what watches.
//   Watching a lock: trylock first; only if that fails is there something to measure. What trylock
//   returns but EBUSY, lock would have returned too, for all types (robust, recursive, priority).
//
// Locking
//   None. Slots may be written while others jump: each value is right at any time, because what
//   watches keeps no state in a lock.
//
// Why this way
//   An IFUNC would cost nothing per call, but its resolver runs while programs are being linked,
//   when this library is not. See docs/design/012.
//   Conditions have an old form on x86-64, of programs linked before 2003, GLIBC_2.2.5; next is the
//   form of all others. Frames may be unwound through: pthread_cond_wait can be cancelled.
//
// Go  1.19 lock_futex.go, sema.go, proc.go newm.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/atomic.h"
#include "base/option.h"
#include "boot/boot.h"
#include "profile/profile.h"

#define PUBLIC ATTR_EXPORT

#if defined(__x86_64__)
#define COND_VERSION "GLIBC_2.3.2"
#else
#define COND_VERSION NULL
#endif

// X(name, params, args, version): what is watched while a profile is on.
#define MUTEX_PARAMS (pthread_mutex_t * mutex)
#define MUTEX_TIMED_PARAMS (pthread_mutex_t * mutex, const struct timespec *until)
#define MUTEX_CLOCK_PARAMS (pthread_mutex_t * mutex, clockid_t clock, const struct timespec *until)
#define RWLOCK_PARAMS (pthread_rwlock_t * lock)
#define RWLOCK_TIMED_PARAMS (pthread_rwlock_t * lock, const struct timespec *until)
#define RWLOCK_CLOCK_PARAMS (pthread_rwlock_t * lock, clockid_t clock, const struct timespec *until)
#define COND_PARAMS (pthread_cond_t * cond, pthread_mutex_t * mutex)
#define COND_TIMED_PARAMS                                                                          \
    (pthread_cond_t * cond, pthread_mutex_t * mutex, const struct timespec *until)
#define COND_CLOCK_PARAMS                                                                          \
    (pthread_cond_t * cond, pthread_mutex_t * mutex, clockid_t clock, const struct timespec *until)

#define WATCHED(X)                                                                                 \
    X(pthread_mutex_lock, MUTEX_PARAMS, (mutex), NULL)                                             \
    X(pthread_mutex_timedlock, MUTEX_TIMED_PARAMS, (mutex, until), NULL)                           \
    X(pthread_mutex_clocklock, MUTEX_CLOCK_PARAMS, (mutex, clock, until), NULL)                    \
    X(pthread_mutex_unlock, MUTEX_PARAMS, (mutex), NULL)                                           \
    X(pthread_rwlock_rdlock, RWLOCK_PARAMS, (lock), NULL)                                          \
    X(pthread_rwlock_wrlock, RWLOCK_PARAMS, (lock), NULL)                                          \
    X(pthread_rwlock_timedrdlock, RWLOCK_TIMED_PARAMS, (lock, until), NULL)                        \
    X(pthread_rwlock_timedwrlock, RWLOCK_TIMED_PARAMS, (lock, until), NULL)                        \
    X(pthread_rwlock_clockrdlock, RWLOCK_CLOCK_PARAMS, (lock, clock, until), NULL)                 \
    X(pthread_rwlock_clockwrlock, RWLOCK_CLOCK_PARAMS, (lock, clock, until), NULL)                 \
    X(pthread_rwlock_unlock, RWLOCK_PARAMS, (lock), NULL)                                          \
    X(pthread_cond_wait, COND_PARAMS, (cond, mutex), COND_VERSION)                                 \
    X(pthread_cond_timedwait, COND_TIMED_PARAMS, (cond, mutex, until), COND_VERSION)               \
    X(pthread_cond_clockwait, COND_CLOCK_PARAMS, (cond, mutex, clock, until), NULL)

#define CREATE_PARAMS                                                                              \
    (pthread_t * thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)

static void find_all(void);

#define X(name, params, args, version)                                                             \
    typedef int(*name##_call) params;                                                              \
    static int name##_first params;                                                                \
    static int name##_watch params;                                                                \
    static atomic_ptr next_##name;                                                                 \
    static atomic_ptr slot_##name = {(void *)name##_first};                                        \
    static int name##_first params                                                                 \
    {                                                                                              \
        find_all();                                                                                \
        name##_call call = (name##_call)load_relaxed(&next_##name);                                \
        return call == NULL ? ENOSYS : call args;                                                  \
    }                                                                                              \
    PUBLIC int name params                                                                         \
    {                                                                                              \
        return ((name##_call)load_fast(&slot_##name))args;                                         \
    }
WATCHED(X)
#undef X

#define NEXT(name) ((name##_call)load_relaxed(&next_##name))

static void *find(const char *name, const char *version)
{
    void *found = version != NULL ? dlvsym(RTLD_NEXT, name, version) : NULL;
    return found != NULL ? found : dlsym(RTLD_NEXT, name);
}

// Finding them again finds the same: two threads may.
static void find_all(void)
{
#define X(name, params, args, version) store_relaxed(&next_##name, find(#name, version));
    WATCHED(X)
#undef X
}

static void slots_set(bool watch)
{
#define X(name, params, args, version)                                                             \
    if (load_relaxed(&next_##name) != NULL) {                                                      \
        store_relaxed(&slot_##name, watch ? (void *)name##_watch : load_relaxed(&next_##name));    \
    }
    WATCHED(X)
#undef X
}

// --- locks ---

// What a try said was not EBUSY, or: the call that waits, measured.
#define WAIT_FOR(object, what, call)                                                               \
    struct wait wait;                                                                              \
    wait_begin(&wait, object, what);                                                               \
    int ret = call;                                                                                \
    bool acquired = ret == 0 || ret == EOWNERDEAD;                                                 \
    wait_end(&wait, acquired, acquired || ret == ETIMEDOUT);                                       \
    return ret

#define WATCH_LOCK(name, params, args, try, object, what)                                          \
    static __attribute__((noinline)) int name##_wait params                                        \
    {                                                                                              \
        WAIT_FOR(object, what, NEXT(name) args);                                                   \
    }                                                                                              \
    static int name##_watch params                                                                 \
    {                                                                                              \
        int tried = try(object);                                                                   \
        return likely(tried != EBUSY) ? tried : name##_wait args;                                  \
    }

WATCH_LOCK(pthread_mutex_lock, MUTEX_PARAMS, (mutex), pthread_mutex_trylock, mutex, WAIT_MUTEX)
WATCH_LOCK(pthread_mutex_timedlock, MUTEX_TIMED_PARAMS, (mutex, until), pthread_mutex_trylock,
           mutex, WAIT_MUTEX)
WATCH_LOCK(pthread_mutex_clocklock, MUTEX_CLOCK_PARAMS, (mutex, clock, until),
           pthread_mutex_trylock, mutex, WAIT_MUTEX)
WATCH_LOCK(pthread_rwlock_rdlock, RWLOCK_PARAMS, (lock), pthread_rwlock_tryrdlock, lock,
           WAIT_RWLOCK)
WATCH_LOCK(pthread_rwlock_wrlock, RWLOCK_PARAMS, (lock), pthread_rwlock_trywrlock, lock,
           WAIT_RWLOCK)
WATCH_LOCK(pthread_rwlock_timedrdlock, RWLOCK_TIMED_PARAMS, (lock, until), pthread_rwlock_tryrdlock,
           lock, WAIT_RWLOCK)
WATCH_LOCK(pthread_rwlock_timedwrlock, RWLOCK_TIMED_PARAMS, (lock, until), pthread_rwlock_trywrlock,
           lock, WAIT_RWLOCK)
WATCH_LOCK(pthread_rwlock_clockrdlock, RWLOCK_CLOCK_PARAMS, (lock, clock, until),
           pthread_rwlock_tryrdlock, lock, WAIT_RWLOCK)
WATCH_LOCK(pthread_rwlock_clockwrlock, RWLOCK_CLOCK_PARAMS, (lock, clock, until),
           pthread_rwlock_trywrlock, lock, WAIT_RWLOCK)

// After the unlocking its memory may be another's: only its address is used, and only before.
#define WATCH_UNLOCK(name, params, args, object)                                                   \
    static int name##_watch params                                                                 \
    {                                                                                              \
        uint64_t waited_ns = wait_unlocking(object);                                               \
        int ret = NEXT(name) args;                                                                 \
        if (unlikely(waited_ns != 0)) {                                                            \
            wait_unlocked(waited_ns);                                                              \
        }                                                                                          \
        return ret;                                                                                \
    }

WATCH_UNLOCK(pthread_mutex_unlock, MUTEX_PARAMS, (mutex), mutex)
WATCH_UNLOCK(pthread_rwlock_unlock, RWLOCK_PARAMS, (lock), lock)

// --- conditions ---

// A wait unlocks the mutex. It may not come back: the thread may be cancelled in it.
#define WATCH_COND(name, params, args)                                                             \
    static int name##_watch params                                                                 \
    {                                                                                              \
        uint64_t waited_ns = wait_unlocking(mutex);                                                \
        if (unlikely(waited_ns != 0)) {                                                            \
            wait_unlocked(waited_ns);                                                              \
        }                                                                                          \
        uint64_t began_ns = wait_now();                                                            \
        int ret = NEXT(name) args;                                                                 \
        if (ret == 0 || ret == ETIMEDOUT || ret == EOWNERDEAD) {                                   \
            wait_over(began_ns, WAIT_COND);                                                        \
        }                                                                                          \
        return ret;                                                                                \
    }

WATCH_COND(pthread_cond_wait, COND_PARAMS, (cond, mutex))
WATCH_COND(pthread_cond_timedwait, COND_TIMED_PARAMS, (cond, mutex, until))
WATCH_COND(pthread_cond_clockwait, COND_CLOCK_PARAMS, (cond, mutex, clock, until))

// --- threads ---

static atomic_ptr next_create;

// Always watched: a thread costs far more than its stack's walk. C11's thrd_create does not come
// through here.
PUBLIC int pthread_create CREATE_PARAMS
{
    int(*call) CREATE_PARAMS = (int(*) CREATE_PARAMS)load_relaxed(&next_create);
    if (unlikely(call == NULL)) {
        call = (int(*) CREATE_PARAMS)find("pthread_create", NULL);
        if (call == NULL) {
            return EAGAIN;
        }
        store_relaxed(&next_create, (void *)call);
    }
    int ret = call(thread, attr, start, arg);
    if (ret == 0) {
        wait_thread_made();
    }
    return ret;
}

void boot_watch_waits(void)
{
    find_all();
    wait_sample_start(slots_set);
    slots_set(false);
    wait_sample_set_block((uint64_t)options_main.blockprofile_rate);
    wait_sample_set_mutex((uint64_t)options_main.mutexprofile_fraction);
}
