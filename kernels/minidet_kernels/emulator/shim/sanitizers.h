// ASAN must know which stack is in use, TSAN which thread is running: without a word from us they take the fibers of a
// block for one thread. In a build without a sanitizer every function here is empty.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* tag);
void __tsan_release(void* tag);
}
#endif

// For the scheduler itself: its data belong to no thread of CUDA, and switching stacks is no error of the kernel.
#define NOT_CHECKED __attribute__((no_sanitize("thread", "address", "undefined")))

namespace emulator {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool SANITIZED = true;
#else
constexpr bool SANITIZED = false;
#endif

#if defined(__SANITIZE_THREAD__)
constexpr bool ONE_THREAD_PER_FIBER = true;  // TSAN knows a thread of CUDA by its fiber
#else
constexpr bool ONE_THREAD_PER_FIBER = false;
#endif

// What the sanitizers know of one stack.
struct SanitizerState {
    const void* stack = nullptr;
    size_t size = 0;
    void* fake_stack = nullptr;  // ASAN's
    void* thread = nullptr;      // TSAN's
};

NOT_CHECKED inline void announce_fiber(SanitizerState& state)
{
#if defined(__SANITIZE_THREAD__)
    if (!state.thread)
        state.thread = __tsan_create_fiber(0);
#endif
    (void)state;
}

NOT_CHECKED inline void announce_scheduler(SanitizerState& state)
{
#if defined(__SANITIZE_THREAD__)
    state.thread = __tsan_get_current_fiber();
#endif
    (void)state;
}

NOT_CHECKED inline void before_switch(SanitizerState& from, SanitizerState& to)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
#endif
#if defined(__SANITIZE_THREAD__)
    constexpr unsigned no_sync = 1;  // a switch orders nothing: on the GPU the two threads run at the same time
    __tsan_switch_to_fiber(to.thread, no_sync);
#endif
    (void)from, (void)to;
}

// `self` goes on; `from` is where we came from: the first time ASAN learns here which stack the scheduler has.
NOT_CHECKED inline void after_switch(SanitizerState& self, SanitizerState& from)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(self.fake_stack, &from.stack, &from.size);
#endif
    (void)self, (void)from;
}

// The order that CUDA does guarantee: what came before signal(tag) in one thread, comes before what follows wait(tag)
// in another.
inline void signal(void* tag)
{
#if defined(__SANITIZE_THREAD__)
    __tsan_release(tag);
#endif
    (void)tag;
}

inline void wait(void* tag)
{
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(tag);
#endif
    (void)tag;
}

}  // namespace emulator
