// The words that CUDA adds to C++, as far as our kernels use them. One that is missing here is a compile error.
#pragma once

#include <cmath>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

// All shared memory of a file lies in one section, so that it can be poisoned before each block. `static`, because on
// the GPU too there is one copy for all the threads of a block; blocks run one after the other here and take turns.
#define __shared__ static __attribute__((section("cuda_shared")))
extern "C" {
extern char __start_cuda_shared[] __attribute__((weak));  // the linker sets both, if there is such a section
extern char __stop_cuda_shared[] __attribute__((weak));
}

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};

// Set by the scheduler (threads.h) whenever a thread begins or goes on; gdb can print them.
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

template <class T>
inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T>
inline T max(T a, T b)
{
    return a < b ? b : a;
}
inline float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
using std::isfinite;
using std::isinf;
using std::isnan;

// The fibers of a launch share one thread of the processor, so a plain addition would give the right sum. A real atomic
// operation is used all the same: it tells TSAN that this access may meet others, and that a plain one may not.
template <class T>
inline T atomicAdd(T* address, T value)
{
    T before, after;
    __atomic_load(address, &before, __ATOMIC_RELAXED);
    do {
        after = before + value;
    } while (!__atomic_compare_exchange(address, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}

template <class T>
inline T atomicMin(T* address, T value)
{
    T before;
    __atomic_load(address, &before, __ATOMIC_RELAXED);
    while (value < before)
        if (__atomic_compare_exchange(address, &before, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            break;
    return before;
}
