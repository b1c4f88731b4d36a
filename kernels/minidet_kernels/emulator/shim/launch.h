// A launch: the arguments come as an array of addresses, as the CUDA driver takes them, and go to the kernel by its own
// signature. The driver believes whatever it is given; here the host code first asks for the signature and compares.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace emulator {

enum Order { FORWARD, REVERSE, RANDOM };

struct Random {
    unsigned state;
    unsigned below(unsigned n)  // Knuth's linear congruential generator; its high bits are the good ones
    {
        state = state * 1664525u + 1013904223u;
        return (state >> 8) % n;
    }
};

static void fill_order(unsigned* order, unsigned n, int how, Random& random)
{
    for (unsigned i = 0; i < n; i++)
        order[i] = how == REVERSE ? n - 1 - i : i;
    for (unsigned i = n; how == RANDOM && i > 1; i--)
        std::swap(order[i - 1], order[random.below(i)]);
}

// Values that another block left in shared memory, or zeros, would hide a read of what nobody has written.
NOT_CHECKED static void poison_shared_memory()
{
    for (volatile char* byte = __start_cuda_shared; byte < __stop_cuda_shared; byte++)
        *byte = POISON;
}

// "float32", "int64", ...: NumPy's names, so that the host can compare.
template <class T>
std::string scalar_name()
{
    const std::string bits = std::to_string(8 * sizeof(T));
    if (std::is_same_v<T, bool>)
        return "bool";
    if (std::is_floating_point_v<T>)
        return "float" + bits;
    static_assert(std::is_arithmetic_v<T>, "kernels take numbers and pointers to numbers");
    return (std::is_signed_v<T> ? "int" : "uint") + bits;
}

template <class T>
std::string parameter_name()
{
    if constexpr (std::is_pointer_v<T>)
        return scalar_name<std::remove_cv_t<std::remove_pointer_t<T>>>() + "*";
    else
        return scalar_name<T>();
}

template <class... Parameters>
const char* signature(void (*)(Parameters...))
{
    static std::string names;
    if (names.empty())
        ((names += parameter_name<Parameters>() + " "), ...);
    return names.c_str();
}

static void** arguments;  // of the launch that is running

template <auto kernel, class... Parameters, size_t... I>
void call_kernel(void (*)(Parameters...), std::index_sequence<I...>)
{
    kernel(*(std::remove_cv_t<Parameters>*)arguments[I]...);
}

template <auto kernel, class... Parameters>
void (*with_arguments(void (*)(Parameters...)))()
{
    return [] { call_kernel<kernel>(kernel, std::index_sequence_for<Parameters...>{}); };
}

NOT_CHECKED static void set_block_index(unsigned number)
{
    blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
}

// Block after block, in the order of the threads. Returns nullptr, or what the kernel did wrong.
static const char* launch(void (*kernel)(), const unsigned* grid, const unsigned* threads, void** addresses, int order,
                          unsigned seed)
{
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads[0], threads[1], threads[2]};
    block.count = threads[0] * threads[1] * threads[2];
    block.kernel = kernel;
    arguments = addresses;
    Random random{seed};
    const unsigned blocks = grid[0] * grid[1] * grid[2];
    // For TSAN: blocks run at the same time. But here they use the same shared memory, one after the other, which is no
    // race; so a file with shared memory has its blocks ordered, and a race between its blocks is not found.
    const bool ordered = __stop_cuda_shared - __start_cuda_shared > 0;
    unsigned* block_order = (unsigned*)malloc(blocks * sizeof(unsigned));
    fill_order(block_order, blocks, order, random);
    bool good = true;
    signal(&launched);
    for (unsigned i = 0; i < blocks && good; i++) {
        set_block_index(block_order[i]);
        poison_shared_memory();
        fill_order(block.order, block.count, order, random);
        good = run_block();
        if (ordered) {
            wait(&finished);
            signal(&launched);
        }
    }
    wait(&finished);
    free(block_order);
    return good ? nullptr : block.message;
}

}  // namespace emulator

#define VISIBLE extern "C" __attribute__((visibility("default")))

// build.py writes one of these for each kernel under the text of the .cu file.
#define EMULATOR_EXPORT(kernel)                                                                                        \
    VISIBLE const char* kernel##_signature()                                                                           \
    {                                                                                                                  \
        return emulator::signature(kernel);                                                                            \
    }                                                                                                                  \
    VISIBLE const char* kernel##_launch(const unsigned* grid, const unsigned* threads, void** addresses, int order,    \
                                        unsigned seed)                                                                 \
    {                                                                                                                  \
        return emulator::launch(emulator::with_arguments<kernel>(kernel), grid, threads, addresses, order, seed);      \
    }
