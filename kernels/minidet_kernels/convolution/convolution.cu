// Convolution as a matrix product whose right matrix exists only piece by piece ("implicit GEMM").
//
// All three functions are a product of matrices, for each group of channels; only what the letters stand for differs:
//
//                     result (rows, columns)          sum over              left               right
//     conv2d          y (k; n i j)                    c r s                 weight             x, seen through the taps
//     input gradient  d x (c; n h w)                  k r s                 weight             grad, that a tap led to
//     weight gradient d weight (k; c r s)             n i j                 grad               x, seen through the taps
//
// Written out, the matrix "x, seen through the taps" would repeat every pixel R*S times. It is never written out: the
// functions `seen` and `handed_back` fetch a number of the right matrix from the image when it is needed.
//
// A product reads each number of its matrices over and over: a row of the left one for every column of the result. So a
// block of 16 x 16 threads, which makes a tile of 16 x 16 results, fetches a tile of either matrix into shared memory,
// where all its threads use it, and goes on to the next:
//
//                                   right   +----+----+----+
//                                           |    |next|    |      thread (x, y) fetches one number of each tile,
//           left                            +----+----+----+      then sums up 16 products, in a register,
//           +----+----+----+                       |              for its own number of the result
//           |    |next|    |  ------------>  result tile
//           +----+----+----+
//
// That is 16 times less traffic to memory, at two barriers a tile. Faster kernels give each thread several results.
// TILE comes from cuda.py.

typedef Real Tile[TILE][TILE + 1];  // one more, so that a column of a tile is spread over the banks of shared memory

struct Geometry {
    int n, c, h, w;  // the image, c within a group
    int k, ho, wo;   // the output, k within a group
    int r, s;        // the taps of the kernel
    int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
    int groups;
};

// All kernels get the geometry as 16 integers.
#define GEOMETRY                                                                                                       \
    int n, int c, int h, int w, int k, int ho, int wo, int r, int s, int stride_h, int stride_w, int padding_h,        \
        int padding_w, int dilation_h, int dilation_w, int groups
#define GEOMETRY_VALUES                                                                                                \
    {n, c, h, w, k, ho, wo, r, s, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups}

// x[image, channel] at the pixel that output (i, j) sees through the tap number `tap` = r * S + s; 0 in the padding.
__device__ Real seen(const Real* x, const Geometry& g, int image, int channel, int i, int j, int tap)
{
    const int row = i * g.stride_h + tap / g.s * g.dilation_h - g.padding_h;
    const int column = j * g.stride_w + tap % g.s * g.dilation_w - g.padding_w;
    if (row < 0 || row >= g.h || column < 0 || column >= g.w)
        return 0;
    return x[((image * g.c * g.groups + channel) * g.h + row) * g.w + column];
}

// The other way round: grad[image, channel] at the output that sees the pixel (row, column) through the tap; 0 if none
// does, because it would lie outside, or between two steps of the stride.
__device__ Real handed_back(const Real* grad, const Geometry& g, int image, int channel, int row, int column, int tap)
{
    const int down = row + g.padding_h - tap / g.s * g.dilation_h;
    const int right = column + g.padding_w - tap % g.s * g.dilation_w;
    if (down < 0 || down % g.stride_h || right < 0 || right % g.stride_w)
        return 0;
    const int i = down / g.stride_h, j = right / g.stride_w;
    if (i >= g.ho || j >= g.wo)
        return 0;
    return grad[((image * g.k * g.groups + channel) * g.ho + i) * g.wo + j];
}

// The number (row, column) of left times right, for matrices of (rows, depth) and (depth, columns) that the functions
// `left_at(row, i)` and `right_at(i, column)` fetch. Every thread of the block must come here, also those whose result
// lies outside: they help to fetch, and wait at the barriers.
template <class Left, class Right>
__device__ Real product(int row, int column, int rows, int columns, int depth, Tile& left, Tile& right,
                        const Left& left_at, const Right& right_at)
{
    const int x = threadIdx.x, y = threadIdx.y;
    Real total = 0;
    for (int start = 0; start < depth; start += TILE) {
        left[y][x] = row < rows && start + x < depth ? left_at(row, start + x) : Real(0);
        right[y][x] = start + y < depth && column < columns ? right_at(start + y, column) : Real(0);
        __syncthreads();  // nobody multiplies before both tiles are there
        for (int i = 0; i < TILE; i++)
            total += left[y][i] * right[i][x];
        __syncthreads();  // nobody fetches the next tiles while somebody still reads these
    }
    return total;
}

extern "C" __global__ void conv2d(const Real* x, const Real* weight, const Real* bias, Real* y, GEOMETRY)
{
    __shared__ Tile left, right;
    const Geometry g = GEOMETRY_VALUES;
    const int outputs = ho * wo, taps = r * s, group = blockIdx.z;
    const int channel = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    const int image = column / outputs, pixel = column % outputs;  // of this thread's column

    const Real total = product(
        channel, column, k, n * outputs, c * taps, left, right,
        [&](int row, int i) { return weight[(group * k + row) * c * taps + i]; },
        [&](int i, int) { return seen(x, g, image, group * c + i / taps, pixel / wo, pixel % wo, i % taps); });
    if (channel < k && column < n * outputs)
        y[(image * k * groups + group * k + channel) * outputs + pixel] = total + bias[group * k + channel];
}

extern "C" __global__ void conv2d_input_grad(const Real* grad, const Real* weight, Real* x_grad, GEOMETRY)
{
    __shared__ Tile left, right;
    const Geometry g = GEOMETRY_VALUES;
    const int pixels = h * w, taps = r * s, group = blockIdx.z;
    const int channel = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    const int image = column / pixels, pixel = column % pixels;

    const Real total = product(
        channel, column, c, n * pixels, k * taps, left, right,
        [&](int row, int i) { return weight[((group * k + i / taps) * c + row) * taps + i % taps]; },
        [&](int i, int) { return handed_back(grad, g, image, group * k + i / taps, pixel / w, pixel % w, i % taps); });
    if (channel < c && column < n * pixels)
        x_grad[(image * c * groups + group * c + channel) * pixels + pixel] = total;
}

extern "C" __global__ void conv2d_weight_grad(const Real* x, const Real* grad, Real* weight_grad, GEOMETRY)
{
    __shared__ Tile left, right;
    const Geometry g = GEOMETRY_VALUES;
    const int outputs = ho * wo, taps = r * s, group = blockIdx.z;
    const int channel = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;

    const Real total = product(
        channel, column, k, c * taps, n * outputs, left, right,
        [&](int row, int i) {
            return grad[(i / outputs * k * groups + group * k + row) * outputs + i % outputs];
        },
        [&](int i, int weight) {
            const int pixel = i % outputs;
            return seen(x, g, i / outputs, group * c + weight / taps, pixel / wo, pixel % wo, weight % taps);
        });
    if (channel < k && column < c * taps)
        weight_grad[(group * k + channel) * c * taps + column] = total;
}
