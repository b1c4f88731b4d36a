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

// ---- convolution ----------------------------------------------------------------------------------------------------
//
// One direction, h or w, of a convolution or of a phase of its input gradient (cuda.py says what that is):
//
//     result pixel  first + i * spread  of `plane`,  for i < count
//     sums up       source pixel  i * stride + a * shift + start  of `size`   (nothing where that is outside)
//     times         weight tap  first_tap + a * tap_step,  for a < taps
struct Axis {
    int size, plane, count, first, spread, stride, shift, start, taps, first_tap, tap_step;
};

// Kernels take numbers only: an axis as 11 integers.
#define AXIS(d)                                                                                                        \
    int size_##d, int plane_##d, int count_##d, int first_##d, int spread_##d, int stride_##d, int shift_##d,          \
        int start_##d, int taps_##d, int first_tap_##d, int tap_step_##d
#define AXIS_VALUES(d)                                                                                                 \
    {size_##d,  plane_##d, count_##d, first_##d,     spread_##d,  stride_##d,                                          \
     shift_##d, start_##d, taps_##d,  first_tap_##d, tap_step_##d}

// Result pixel number `pixel`, counted over all images; `planes` of the source make an image.
__device__ Place place_of_pixel(int pixel, const Axis& h, const Axis& w, int planes)
{
    const int image = pixel / (h.count * w.count), i = pixel / w.count % h.count, j = pixel % w.count;
    const int row = i * h.stride + h.start, column = j * w.stride + w.start;
    return {0, image * planes * h.size * w.size + row * w.size + column, row, column};
}

// Tap number `tap`, counted over all channels.
__device__ Place place_of_tap(int tap, const Axis& h, const Axis& w)
{
    const int channel = tap / (h.taps * w.taps), a = tap / w.taps % h.taps, b = tap % w.taps;
    const int row = a * h.shift, column = b * w.shift;
    return {0, channel * h.size * w.size + row * w.size + column, row, column};
}

// conv2d, or one phase of the input gradient. Of each group: `rows` channels of the result from `channels` of the
// source; weights lie row_step, channel_step and group_step apart. `parts` blocks share a sum: part p goes to
// result + p * part_step, the bias to the first.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) correlate(
    const Real* source, const Real* weight, const Real* bias, Real* result, int n, int groups, int rows, int channels,
    int row_step, int channel_step, int group_step, int biased, int parts, int part_depth, int part_step, AXIS(h),
    AXIS(w))
{
    const Axis h = AXIS_VALUES(h), w = AXIS_VALUES(w);
    const int group = blockIdx.z / parts, part_number = blockIdx.z % parts, taps = h.taps * w.taps;
    const Part part = part_of_sum(rows, n * h.count * w.count, channels * taps, part_number, part_depth);
    const Image image = {source + group * channels * h.size * w.size, h.size, w.size};

    Results results;
    product<false>(
        results, part, weight + group * group_step, row_step, image,
        [&](int depth) {
            Place place = place_of_tap(depth, h, w);
            const int a = depth / w.taps % h.taps, b = depth % w.taps;
            place.left = depth / taps * channel_step + h.first_tap + a * h.tap_step + w.first_tap + b * w.tap_step;
            return place;
        },
        [&](int column) { return place_of_pixel(column, h, w, groups * channels); });
    store_each(results, part, [&](int row, int column, Real value) {
        const int image = column / (h.count * w.count), i = column / w.count % h.count, j = column % w.count;
        const int channel = group * rows + row;
        const int y = h.first + i * h.spread, x = w.first + j * w.spread;
        result[part_number * part_step + ((image * groups * rows + channel) * h.plane + y) * w.plane + x] =
            biased && part_number == 0 ? value + bias[channel] : value;
    });
}

// The weight gradient: `rows` channels of grad and `channels` of the image x in each group, and the axes of conv2d.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) weight_gradient(
    const Real* x, const Real* grad, Real* result, int n, int groups, int rows, int channels, int parts,
    int part_depth, int part_step, AXIS(h), AXIS(w))
{
    const Axis h = AXIS_VALUES(h), w = AXIS_VALUES(w);
    const int group = blockIdx.z / parts, part_number = blockIdx.z % parts;
    const int columns = channels * h.taps * w.taps, outputs = h.count * w.count;
    const Part part = part_of_sum(rows, columns, n * outputs, part_number, part_depth);
    const Image image = {x + group * channels * h.size * w.size, h.size, w.size};

    Results results;
    product<true>(
        results, part, grad + group * rows * outputs, outputs, image,
        [&](int depth) {
            Place place = place_of_pixel(depth, h, w, groups * channels);
            place.left = depth / outputs * groups * rows * outputs + depth % outputs;
            return place;
        },
        [&](int column) { return place_of_tap(column, h, w); });
    store_each(results, part, [&](int row, int column, Real value) {
        result[part_number * part_step + (group * rows + row) * columns + column] = value;
    });
}

// result = the sum of the parts, always in the same order.
extern "C" __global__ void add_parts(const Real* partial, Real* result, int parts, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    Real total = 0;
    for (int part = 0; part < parts; part++)
        total += partial[part * count + i];
    result[i] = total;
}

// ---- Winograd's method ----------------------------------------------------------------------------------------------
//
// winograd.py explains it: a tile of 4 x 4 results sees 6 x 6 pixels, and linear maps turn its convolution with 3 x 3
// weights into 36 products, one for each "frequency", where the equation has 16 * 9 = 144:
//
//     pixels (6 x 6)   d -> B' d B  }
//                                   } times, for each frequency, summed over the channels    m -> A' m A   (4 x 4)
//     weights (3 x 3)  g -> G g G'  }
//
// and for the weight gradient the adjoint of that:
//
//     pixels (6 x 6)   d -> B' d B  }
//                                   } times, for each frequency, summed over the tiles       m -> G' m G   (3 x 3)
//     grad (4 x 4)     y -> A y A'  }
//
// The sums over channels, or over tiles, are 36 matrix products, made by `product`. The maps before and after are bound
// by memory: about 2 FLOP a byte. A thread makes one tile of one channel, in registers. Neighbouring threads make
// neighbouring tiles, so they write and read neighbours of each frequency. (Their pixels are 4 apart, but what a warp
// reads in six loads are the same rows, and five of them find theirs in the cache L1.)
//
// Numbers at the frequencies: [36][channels][tiles], where the host takes so many tiles at a time that they stay in the
// cache L2. Weights at the frequencies: [36][rows][depth].

constexpr int FREQUENCIES = 36, SIDE = 6, PIXELS = 4;
constexpr Real QUARTER = Real(1) / 4, SIXTH = Real(1) / 6, TWELFTH = Real(1) / 12;

// B', A', A, G and G', each in place on v[0], v[step], v[2 * step], ...

__device__ void of_image(Real* v, int step)
{
    const Real d0 = v[0], d1 = v[step], d2 = v[2 * step], d3 = v[3 * step], d4 = v[4 * step], d5 = v[5 * step];
    v[0] = 4 * d0 - 5 * d2 + d4;
    v[step] = (d4 + d3) - 4 * (d1 + d2);
    v[2 * step] = (d4 - d3) + 4 * (d1 - d2);
    v[3 * step] = (d4 - d2) + 2 * (d3 - d1);
    v[4 * step] = (d4 - d2) - 2 * (d3 - d1);
    v[5 * step] = 4 * d1 - 5 * d3 + d5;
}

__device__ void to_image(Real* v, int step)
{
    const Real m0 = v[0], m1 = v[step], m2 = v[2 * step], m3 = v[3 * step], m4 = v[4 * step], m5 = v[5 * step];
    v[0] = m0 + (m1 + m2) + (m3 + m4);
    v[step] = (m1 - m2) + 2 * (m3 - m4);
    v[2 * step] = (m1 + m2) + 4 * (m3 + m4);
    v[3 * step] = (m1 - m2) + 8 * (m3 - m4) + m5;
}

__device__ void of_grad(Real* v, int step)
{
    const Real y0 = v[0], y1 = v[step], y2 = v[2 * step], y3 = v[3 * step];
    v[step] = (y0 + y2) + (y1 + y3);
    v[2 * step] = (y0 + y2) - (y1 + y3);
    v[3 * step] = (y0 + 4 * y2) + (2 * y1 + 8 * y3);
    v[4 * step] = (y0 + 4 * y2) - (2 * y1 + 8 * y3);
    v[5 * step] = y3;
}

__device__ void of_weights(Real* v, int step)
{
    const Real g0 = v[0], g1 = v[step], g2 = v[2 * step];
    v[0] = QUARTER * g0;
    v[step] = -SIXTH * (g0 + g2 + g1);
    v[2 * step] = -SIXTH * (g0 + g2 - g1);
    v[3 * step] = SIXTH * (QUARTER * g0 + g2) + TWELFTH * g1;
    v[4 * step] = SIXTH * (QUARTER * g0 + g2) - TWELFTH * g1;
    v[5 * step] = g2;
}

__device__ void to_weights(Real* v, int step)
{
    const Real m0 = v[0], m1 = v[step], m2 = v[2 * step], m3 = v[3 * step], m4 = v[4 * step], m5 = v[5 * step];
    v[0] = QUARTER * (m0 + SIXTH * (m3 + m4)) - SIXTH * (m1 + m2);
    v[step] = SIXTH * (m2 - m1) + TWELFTH * (m3 - m4);
    v[2 * step] = SIXTH * ((m3 + m4) - (m1 + m2)) + m5;
}

// A map in both directions of a tile: on its `BEFORE` columns, then on the `AFTER` rows that come out.
template <void MAP(Real*, int), int BEFORE, int AFTER>
__device__ void both_ways(Real* tile)
{
#pragma unroll
    for (int column = 0; column < BEFORE; column++)
        MAP(tile + column, SIDE);
#pragma unroll
    for (int row = 0; row < AFTER; row++)
        MAP(tile + row * SIDE, 1);
}

// The tile `first` + i % tiles, in channel i / tiles. Tiles are counted over all images, each of down * across of them.
struct TilePlace {
    int channel, image, row, column;  // of its first result
};

__device__ TilePlace place_of_tile(int i, int first, int tiles, int down, int across)
{
    const int tile = first + i % tiles;
    return {i / tiles, tile / (down * across), tile / across % down * PIXELS, tile % across * PIXELS};
}

// Fetches SEEN x SEEN pixels of an image of h x w, maps them, and writes number i of each frequency.
template <int SEEN, void MAP(Real*, int)>
__device__ void to_frequencies(const Real* plane, int h, int w, int top, int left, Real* frequencies, int i, int count)
{
    Real tile[FREQUENCIES];
#pragma unroll
    for (int row = 0; row < SEEN; row++)
#pragma unroll
        for (int column = 0; column < SEEN; column++) {
            const bool inside = unsigned(top + row) < unsigned(h) && unsigned(left + column) < unsigned(w);
            tile[row * SIDE + column] = inside ? plane[(top + row) * w + left + column] : Real(0);
        }
    both_ways<MAP, SEEN, SIDE>(tile);
#pragma unroll
    for (int frequency = 0; frequency < FREQUENCIES; frequency++)
        frequencies[frequency * count + i] = tile[frequency];
}

extern "C" __global__ void image_to_frequencies(
    const Real* x, Real* frequencies, int channels, int h, int w, int padding_h, int padding_w, int first, int tiles,
    int down, int across, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const TilePlace at = place_of_tile(i, first, tiles, down, across);
    const Real* plane = x + (at.image * channels + at.channel) * h * w;
    to_frequencies<SIDE, of_image>(plane, h, w, at.row - padding_h, at.column - padding_w, frequencies, i, count);
}

extern "C" __global__ void grad_to_frequencies(
    const Real* grad, Real* frequencies, int channels, int h, int w, int first, int tiles, int down, int across,
    int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const TilePlace at = place_of_tile(i, first, tiles, down, across);
    const Real* plane = grad + (at.image * channels + at.channel) * h * w;
    to_frequencies<PIXELS, of_grad>(plane, h, w, at.row, at.column, frequencies, i, count);
}

// Number (row, depth) at each frequency, from the weights that lie row_step and depth_step apart. Turned by 180 degrees
// they make of the convolution its input gradient.
extern "C" __global__ void weight_to_frequencies(
    const Real* weight, Real* frequencies, int depth, int row_step, int depth_step, int turned, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const Real* taps = weight + i / depth * row_step + i % depth * depth_step;
    Real tile[FREQUENCIES];
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
        tile[tap / 3 * SIDE + tap % 3] = taps[turned ? 8 - tap : tap];
    both_ways<of_weights, 3, SIDE>(tile);
#pragma unroll
    for (int frequency = 0; frequency < FREQUENCIES; frequency++)
        frequencies[frequency * count + i] = tile[frequency];
}

extern "C" __global__ void frequencies_to_image(
    const Real* frequencies, const Real* bias, Real* y, int biased, int channels, int h, int w, int first, int tiles,
    int down, int across, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const TilePlace at = place_of_tile(i, first, tiles, down, across);
    Real tile[FREQUENCIES];
#pragma unroll
    for (int frequency = 0; frequency < FREQUENCIES; frequency++)
        tile[frequency] = frequencies[frequency * count + i];
    both_ways<to_image, SIDE, PIXELS>(tile);
    const Real constant = biased ? bias[at.channel] : Real(0);
    Real* plane = y + (at.image * channels + at.channel) * h * w;
#pragma unroll
    for (int row = 0; row < PIXELS; row++)
#pragma unroll
        for (int column = 0; column < PIXELS; column++)
            if (at.row + row < h && at.column + column < w)
                plane[(at.row + row) * w + at.column + column] = tile[row * SIDE + column] + constant;
}

// The weight gradient, count = K * C kernels of 3 x 3, from its parts at the frequencies, always in the same order.
extern "C" __global__ void frequencies_to_weight(const Real* frequencies, Real* weight_grad, int parts, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    Real tile[FREQUENCIES];
#pragma unroll
    for (int frequency = 0; frequency < FREQUENCIES; frequency++) {
        tile[frequency] = 0;
        for (int part = 0; part < parts; part++)
            tile[frequency] += frequencies[(part * FREQUENCIES + frequency) * count + i];
    }
    both_ways<to_weights, SIDE, 3>(tile);
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
        weight_grad[i * 9 + tap] = tile[tap / 3 * SIDE + tap % 3];
}

// At each frequency: image (rows, columns) = weight (rows, depth) times image (depth, columns). Columns are tiles.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) sum_over_channels(
    const Real* weight, const Real* image, Real* result, int rows, int depth, int columns)
{
    const int frequency = blockIdx.z;
    const Part part = part_of_sum(rows, columns, depth, 0, depth);
    Results results;
    product<false>(
        results, part, weight + frequency * rows * depth, depth, {image + frequency * depth * columns, 1, 1},
        [&](int channel) { return Place{channel, channel * columns, 0, 0}; },
        [&](int tile) { return Place{0, tile, 0, 0}; });
    store_each(results, part, [&](int row, int column, Real value) {
        result[(frequency * rows + row) * columns + column] = value;
    });
}

// At each frequency: weight gradient (rows, columns) = grad (rows, tiles) times image (columns, tiles) transposed. If
// `more`, it is added to what is there from other tiles. Several blocks share a sum, each with a result of its own.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) sum_over_tiles(
    const Real* grad, const Real* image, Real* result, int rows, int columns, int tiles, int parts, int part_depth,
    int more)
{
    const int z = blockIdx.z, frequency = z % FREQUENCIES, part_number = z / FREQUENCIES;
    const Part part = part_of_sum(rows, columns, tiles, part_number, part_depth);
    Results results;
    product<true>(
        results, part, grad + frequency * rows * tiles, tiles, {image + frequency * columns * tiles, 1, 1},
        [&](int tile) { return Place{tile, tile, 0, 0}; },
        [&](int channel) { return Place{0, channel * tiles, 0, 0}; });
    store_each(results, part, [&](int row, int column, Real value) {
        Real& sum = result[(z * rows + row) * columns + column];
        sum = more ? sum + value : value;
    });
}
