// Winograd's method on the GPU. winograd.py explains it: a tile of 4 x 4 results sees 6 x 6 pixels, and linear maps turn
// its convolution with 3 x 3 weights into 36 products, one for each "frequency", where the equation has 16 * 9 = 144:
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
