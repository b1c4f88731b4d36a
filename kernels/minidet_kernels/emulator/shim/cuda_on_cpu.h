// Makes C++ of CUDA: g++ includes this file before the text of a .cu file, which stays as it is.
//
//     language.h     the words that CUDA adds to C++: __global__, __shared__, threadIdx, atomicAdd, ...
//     sanitizers.h   what ASAN and TSAN must be told when one thread of CUDA stops and another goes on
//     threads.h      a block: its threads as fibers that take turns, and __syncthreads()
//     launch.h       a launch: unpacks the arguments, runs block after block
//
// Start with threads.h: the rest only serves it.
#pragma once

#include "language.h"
#include "sanitizers.h"
#include "threads.h"
#include "launch.h"
