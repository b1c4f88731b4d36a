// Convolution as a matrix product whose right matrix exists only piece by piece ("implicit GEMM").
//
// All three functions are a product of matrices, for each group of channels; only what the letters stand for differs:
//
//                     result (rows, columns)          sum over (depth)      left               right
//     conv2d          y (k; n i j)                    c r s                 weight             x, seen through the taps
//     input gradient  d x (c; n h w)                  k r s                 weight             grad, that a tap led to
//     weight gradient d weight (k; c r s)             n i j                 grad               x, seen through the taps
//
// Written out, the matrix "x, seen through the taps" would repeat every pixel R*S times. It is never written out: the
// function `seen` fetches a number of it from the image when it is needed.
//
// From memory to the multiplier in three steps, each of which fetches a number once and uses it many times:
//
//     1. memory                             2. shared memory                       3. registers
//     a block makes 64 x 64 results         slice after slice, 16 deep             a thread makes 8 x 4 results
//
//               right                         16 x 64 of the right matrix
//              +----+----+----+              +---------------------------+              b    b    b    b
//        depth |    |####|    |              | .b.....b.....b.....b..... |
//              |    |####|    |              +---------------------------+         a    r    r    r    r
//              |    |####|    |    64 x 16                                         a    r    r    r    r
//              +----+----+----+    of left   +---------------------------+         a    r    r    r    r
//     left     +----+----+----+    +----+    |                           |         a    r    r    r    r
//     +----+   |    |    |    |    | a. |    | .r.....r.....r.....r..... |         a    r    r    r    r
//     |####|   |    |tile|    |    | a. |    | .r.....r.....r.....r..... |         a    r    r    r    r
//     |    |   |    |    |    |    | :. |    | .:.....:.....:.....:..... |         a    r    r    r    r
//     +----+   +----+----+----+    +----+    +---------------------------+         a    r    r    r    r
//      depth       result           depth         the block's results
//
// At each depth of a slice a thread reads 8 numbers `a` and 4 numbers `b` and multiplies each with each: r += a * b.
// Its columns are 16 apart, so that neighbouring threads read, and in the end write, neighbouring numbers.
//
// What bounds it: the instructions. Four neighbours `a` come in one, so 6 of them read for 32 that multiply and add: at
// best 32/38 = 84 % of the GPU's peak, less what fetching takes. Shared memory is fast enough: the 32 threads of a warp
// read 80 different numbers for 32 * 32 multiply-adds, 6.4 FLOP a byte, and GPUs from Turing to Hopper can do 1 or 2 in
// the time of a byte. L2 and memory: 2 * 64 * 16 numbers, 8 KB, for the 64 * 64 * 16 multiply-adds of a slice are 16
// FLOP a byte, where L2 wants 4 to 12. To hide that memory answers late, the next slice is fetched while one is
// multiplied, and several blocks share a multiprocessor: one computes while another waits.
//
// ROWS, COLUMNS, DEPTH and THREADS come from cuda.py.

constexpr int THREAD_ROWS = 8, THREAD_COLUMNS = 4;
constexpr int ACROSS = COLUMNS / THREAD_COLUMNS;  // threads side by side; a thread's columns are that far apart
// Blocks that a multiprocessor's 65536 registers must be enough for: 128 registers a thread, in double twice as many.
constexpr int RESIDENT = sizeof(Real) == 4 ? 4 : 2;
static_assert(ROWS / THREAD_ROWS * ACROSS == THREADS, "the threads' results must make up the block's");
static_assert(COLUMNS <= THREADS && DEPTH <= THREADS, "a thread works out at most one place of either table");
static_assert(ROWS * DEPTH % THREADS == 0 && COLUMNS * DEPTH % THREADS == 0, "all threads fetch equally much");

// Where a depth or a column of the product lies. The number (depth, column) of the right matrix is the pixel of the
// image at the sum of the two places; the number (row, depth) of the left one lies `left` further than its row begins.
// To work that out takes divisions, so it is done once for a depth or column, by one thread, and put into a table.
struct alignas(16) Place {
    int left, offset, row, column;  // offset: in the array of all images, row and column: in one
};

constexpr int OUTSIDE = -(1 << 30);  // a row so far outside that no other place brings it back

struct alignas(16) Tiles {
    // Of everything two: while one slice is multiplied, the other is filled. Of numbers, some more than needed, so that
    // threads that write one below the other come to different banks of shared memory.
    Real left[2][DEPTH][ROWS + 4];      // 4: and every row begins where the GPU can read four numbers at once
    Real right[2][DEPTH][COLUMNS + 2];
    Place depths[2][DEPTH];
    Place columns[COLUMNS];
};

__shared__ Tiles tiles;

struct Image {
    const Real* pixels;
    int h, w;
};

// Places by value: from shared memory each comes in one instruction.
__device__ Real seen(const Image& image, Place a, Place b)
{
    const int row = a.row + b.row, column = a.column + b.column;
    const bool inside = unsigned(row) < unsigned(image.h) && unsigned(column) < unsigned(image.w);  // below 0: huge
    return inside ? image.pixels[a.offset + b.offset] : Real(0);
}

// Which part of the product this block makes.
struct Part {
    int rows, columns;  // of the matrix of results: the block's tile may reach beyond them
    int begin, end;     // of the sum
    __device__ int first_row() const { return blockIdx.y * ROWS; }
    __device__ int first_column() const { return blockIdx.x * COLUMNS; }
};

__device__ Part part_of_sum(int rows, int columns, int depth, int part, int part_depth)
{
    return {rows, columns, min(part * part_depth, depth), min((part + 1) * part_depth, depth)};
}

typedef Real Results[THREAD_ROWS][THREAD_COLUMNS];

// The results of this thread. Row i of the left matrix begins at left + i * left_step; `depth_at` and `column_at` say
// where the others lie. RIGHT_LIES_ALONG_DEPTH: neighbouring depths of the right matrix are neighbours in memory,
// otherwise neighbouring columns are; neighbouring threads fetch neighbours, 16 or 32 numbers at a time.
//
// Every thread of the block must come here, also those without a result: they help to fetch, and wait at the barriers.
template <bool RIGHT_LIES_ALONG_DEPTH, class DepthAt, class ColumnAt>
__device__ void product(Results& results, const Part& part, const Real* left, int left_step, const Image& right,
                        const DepthAt& depth_at, const ColumnAt& column_at)
{
    constexpr int LEFT = ROWS * DEPTH / THREADS, RIGHT = COLUMNS * DEPTH / THREADS;  // numbers that a thread fetches
    const int thread = threadIdx.x;
    const int own_row = thread / ACROSS * THREAD_ROWS, own_column = thread % ACROSS;
    const bool has_results = part.first_row() + own_row < part.rows;
    Real next_left[LEFT], next_right[RIGHT];

    const auto find_depths = [&](int start, int which) {
        if (thread < DEPTH)
            tiles.depths[which][thread] =
                start + thread < part.end ? depth_at(start + thread) : Place{-1, 0, OUTSIDE, 0};
    };
    const auto fetch = [&](int which) {
        const Place depth = tiles.depths[which][thread % DEPTH];
#pragma unroll
        for (int i = 0; i < LEFT; i++) {
            const int row = part.first_row() + (thread + i * THREADS) / DEPTH;
            next_left[i] = row < part.rows && depth.left >= 0 ? left[row * left_step + depth.left] : Real(0);
        }
#pragma unroll
        for (int i = 0; i < RIGHT; i++) {
            const int at = thread + i * THREADS;
            next_right[i] = RIGHT_LIES_ALONG_DEPTH
                                ? seen(right, depth, tiles.columns[at / DEPTH])
                                : seen(right, tiles.depths[which][at / COLUMNS], tiles.columns[at % COLUMNS]);
        }
    };
    const auto put = [&](int which) {
#pragma unroll
        for (int i = 0; i < LEFT; i++) {
            const int at = thread + i * THREADS;
            tiles.left[which][at % DEPTH][at / DEPTH] = next_left[i];
        }
#pragma unroll
        for (int i = 0; i < RIGHT; i++) {
            const int at = thread + i * THREADS;
            const int depth = RIGHT_LIES_ALONG_DEPTH ? at % DEPTH : at / COLUMNS;
            const int column = RIGHT_LIES_ALONG_DEPTH ? at / DEPTH : at % COLUMNS;
            tiles.right[which][depth][column] = next_right[i];
        }
    };
    const auto multiply = [&](int which) {
#pragma unroll
        for (int depth = 0; depth < DEPTH; depth++) {
            const Real* a = &tiles.left[which][depth][own_row];
            const Real* b = &tiles.right[which][depth][own_column];
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; i++)
#pragma unroll
                for (int j = 0; j < THREAD_COLUMNS; j++)
                    results[i][j] += a[i] * b[j * ACROSS];
        }
    };

    for (int i = 0; i < THREAD_ROWS; i++)
        for (int j = 0; j < THREAD_COLUMNS; j++)
            results[i][j] = 0;
    if (thread < COLUMNS)
        tiles.columns[thread] = part.first_column() + thread < part.columns ? column_at(part.first_column() + thread)
                                                                            : Place{0, 0, OUTSIDE, 0};
    find_depths(part.begin, 0);
    __syncthreads();  // nobody looks up a place before all are there
    fetch(0);
    for (int start = part.begin, which = 0; start < part.end; start += DEPTH, which = 1 - which) {
        put(which);
        find_depths(start + DEPTH, 1 - which);
        __syncthreads();  // nobody multiplies before both tiles are there; and all have left the slice before this one
        fetch(1 - which);  // which takes long, so it begins before the multiplication
        if (has_results)
            multiply(which);
    }
}

// Calls store(row, column, value) for the results of this thread. Neighbouring threads store neighbouring columns.
template <class Store>
__device__ void store_each(const Results& results, const Part& part, const Store& store)
{
    const int first_row = part.first_row() + threadIdx.x / ACROSS * THREAD_ROWS;
    const int first_column = part.first_column() + threadIdx.x % ACROSS;
#pragma unroll
    for (int j = 0; j < THREAD_COLUMNS; j++)
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; i++)
            if (first_row + i < part.rows && first_column + j * ACROSS < part.columns)
                store(first_row + i, first_column + j * ACROSS, results[i][j]);
}
