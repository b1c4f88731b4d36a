// A block of CUDA threads on one thread of the processor.
//
// Each thread of CUDA can stop at __syncthreads() in the middle of the kernel and go on later, so it needs a stack of
// its own: a fiber. The scheduler runs the threads in a chosen order, each until it waits at the barrier or returns:
//
//     scheduler     thread 0        thread 1        thread 2
//     run 0    ---> x = ...
//     run 1  <----- barrier ------> x = ...
//     run 2  <--------------------- barrier ------> x = ...
//     all wait <----------------------------------- barrier        now every thread may pass
//     run 0    ---> y = ...
//
// On the GPU the threads run at the same time, in no order at all. Of a correct kernel the result does not depend on
// the order, so three are tried: forward, reverse, random. A thread that reads what another has not yet written gets
// poison.
//
// Most kernels have no barrier. Therefore a fiber whose thread returns takes the next thread that has not begun: as
// long as nobody waits, one fiber runs them all, and nothing is ever switched.
#pragma once

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>

namespace emulator {

constexpr unsigned MOST_THREADS = 1024;     // of a block, on every GPU so far
constexpr size_t STACK_BYTES = 256 * 1024;  // room for a sanitizer's report; pages that nobody touches cost nothing
constexpr char POISON = (char)0xFF;         // as float or double it is NaN, as integer -1

// Where a fiber (or the scheduler) stopped. glibc's swapcontext makes a system call at every switch and _longjmp does
// not: batch normalisation, with its many barriers, is six times as fast. But the sanitizers know only swapcontext.
struct Context {
    ucontext_t registers;
    jmp_buf jump;
    bool started = false;  // has begun, so that `jump` tells where to go on
    SanitizerState sanitizer;
};

enum class State { not_begun, running, at_barrier, returned };

struct Fiber {
    Context context;
    char* stack = nullptr;
};

struct Thread {
    uint3 index;
    State state;
    int line;  // of the __syncthreads() where it waits
    Fiber* fiber;
};

struct Block {
    Thread threads[MOST_THREADS];
    unsigned order[MOST_THREADS];  // in which the threads begin, and go on after a barrier
    unsigned count, begun, returned;
    Thread* current;
    Fiber* woken;
    Fiber fibers[MOST_THREADS];
    Context scheduler;
    void (*kernel)();  // with the arguments of this launch
    char barriers[2];  // tags for TSAN; two, so that passing one barrier is not taken for reaching the next
    unsigned passed;
    char message[200];  // what was wrong, if anything
};

static Block block;

NOT_CHECKED static void switch_from_to(Context& from, Context& to)
{
    before_switch(from.sanitizer, to.sanitizer);
    if (SANITIZED)
        swapcontext(&from.registers, &to.registers);
    else if (_setjmp(from.jump) == 0) {
        if (to.started)
            _longjmp(to.jump, 1);
        to.started = true;
        setcontext(&to.registers);
    }
    after_switch(from.sanitizer, to.sanitizer);
}

static char launched, finished;  // tags for TSAN: the host's work, then the kernel, then the host's again

NOT_CHECKED static void run_thread(Thread& thread, Fiber* fiber)
{
    thread.fiber = fiber;
    thread.state = State::running;
    block.current = &thread;
    threadIdx = thread.index;
    wait(&launched);
    block.kernel();
    signal(&finished);
    thread.state = State::returned;
    block.returned++;
}

// What a fiber does all its life: run threads, then sleep until the scheduler needs it in another block.
NOT_CHECKED static void live()
{
    Fiber* self = block.woken;
    after_switch(self->context.sanitizer, block.scheduler.sanitizer);
    for (;;) {
        do
            run_thread(block.threads[block.order[block.begun++]], self);
        while (!ONE_THREAD_PER_FIBER && block.begun < block.count);
        switch_from_to(self->context, block.scheduler);
    }
}

NOT_CHECKED static void wake(Fiber& fiber)
{
    block.woken = &fiber;
    if (!fiber.stack) {  // never used before
        fiber.stack = (char*)malloc(STACK_BYTES);
        Context& context = fiber.context;
        context.sanitizer.stack = fiber.stack;
        context.sanitizer.size = STACK_BYTES;
        announce_fiber(context.sanitizer);
        getcontext(&context.registers);
        context.registers.uc_stack.ss_sp = fiber.stack;
        context.registers.uc_stack.ss_size = STACK_BYTES;
        makecontext(&context.registers, live, 0);
        context.registers.uc_stack.ss_size = 0;  // or ASAN would wipe its record of the whole stack at every switch
    }
    switch_from_to(block.scheduler, fiber.context);
}

NOT_CHECKED static void synchronize(int line)
{
    Thread* self = block.current;
    char* barrier = &block.barriers[block.passed % 2];
    self->state = State::at_barrier;
    self->line = line;
    signal(barrier);
    switch_from_to(self->fiber->context, block.scheduler);
    wait(barrier);
}

// All threads of a block must come to the same barrier, or none. On a GPU this mistake hangs or corrupts, or seems to
// work until the next driver.
NOT_CHECKED static bool all_wait_at_one_barrier()
{
    int line = 0;
    for (unsigned i = 0; i < block.count; i++) {
        const Thread& thread = block.threads[i];
        if (thread.state != State::at_barrier)
            continue;
        if (line && thread.line != line) {
            snprintf(block.message, sizeof block.message,
                     "divergent barrier: some threads of a block wait at __syncthreads() in line %d, others in line %d",
                     line < thread.line ? line : thread.line, line < thread.line ? thread.line : line);
            return false;
        }
        line = thread.line;
    }
    if (block.returned)
        snprintf(block.message, sizeof block.message,
                 "divergent barrier: %u of %u threads of a block wait at __syncthreads() in line %d, the others have "
                 "returned",
                 block.count - block.returned, block.count, line);
    return block.returned == 0;
}

// The fibers of a block that failed stopped somewhere in the kernel: the next block must not go on there.
NOT_CHECKED static void forget_fibers()
{
    for (Fiber& fiber : block.fibers) {
        free(fiber.stack);
        fiber = Fiber();
    }
}

// Runs all threads of one block in the order `block.order`. False if the kernel did what no kernel may.
NOT_CHECKED static bool run_block()
{
    block.begun = block.returned = block.passed = 0;
    for (unsigned i = 0; i < block.count; i++) {
        block.threads[i].state = State::not_begun;
        block.threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    }
    announce_scheduler(block.scheduler.sanitizer);
    block.scheduler.started = true;
    for (unsigned used = 0; block.begun < block.count; used++)
        wake(block.fibers[used]);
    while (block.returned < block.count) {
        if (!all_wait_at_one_barrier()) {
            forget_fibers();
            return false;
        }
        block.passed++;
        for (unsigned i = 0; i < block.count; i++) {
            Thread& thread = block.threads[block.order[i]];
            thread.state = State::running;
            block.current = &thread;
            threadIdx = thread.index;
            wake(*thread.fiber);
        }
    }
    return true;
}

}  // namespace emulator

#define __syncthreads() emulator::synchronize(__LINE__)
