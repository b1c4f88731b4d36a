// Total variation: images are (N, C, H, W) without gaps, fields (2, N, C, H, W). One thread makes one number of the
// result, or the two of a field at one pixel; neighbouring threads make neighbouring columns.
//
// A pixel has two differences of its own, to the right (dx) and to the lower neighbour (dy), 0 at the last column and
// row; and it is the other end of two more, those of its left and of its upper neighbour:
//
//               |
//               dy of the pixel above
//               |
//     --- dx --[p]-- dx ---
//               |
//               dy
//               |
//
// The sums over images are in double, as the contract says. A block adds up PIXELS_OF_A_BLOCK pixels of one channel
// (each thread every THREADS-th, then a tree in shared memory, see batch_norm.cu), another launch the blocks' sums:
// always in the same order, so the same bits on every run. THREADS is a power of 2.

// The differences of the pixel at (row, column), which `x` points to.
template <class Number>
__device__ Number difference_right(const Real* x, int column, int w)
{
    return column + 1 < w ? Number(x[1]) - Number(x[0]) : Number(0);
}

template <class Number>
__device__ Number difference_below(const Real* x, int row, int h, int w)
{
    return row + 1 < h ? Number(x[w]) - Number(x[0]) : Number(0);
}

__device__ Real sign(Real value)
{
    return value > 0 ? Real(1) : value < 0 ? Real(-1) : value;  // 0, or NaN
}

// In double, in which the square of a small float is not 0, nor the length of a pair of large ones infinite.
__device__ double length(Real px, Real py)
{
    return sqrt(double(px) * px + double(py) * py);
}

// *total = the sum of what each thread of the block brings. `sums` is shared memory for THREADS numbers.
__device__ void store_block_sum(double own, double* sums, double* total)
{
    const int thread = threadIdx.x;
    sums[thread] = own;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // nobody reads before all have written
        if (thread < half)
            sums[thread] += sums[thread + half];
    }
    if (thread == 0)  // whose own the last addition was: nobody else may look without a barrier
        *total = sums[0];
}

// sums (planes, parts): part k of a plane is the sum over its pixels from k * PIXELS_OF_A_BLOCK.
template <bool isotropic>
__device__ void sum_up(const Real* x, double* sums, double* shared, int parts, int h, int w)
{
    const int pixels = h * w, plane = blockIdx.x / parts, first = blockIdx.x % parts * PIXELS_OF_A_BLOCK;
    double own = 0;
    for (int k = threadIdx.x; k < PIXELS_OF_A_BLOCK && first + k < pixels; k += THREADS) {
        const int pixel = first + k;
        const Real* here = x + plane * pixels + pixel;
        const double dx = difference_right<double>(here, pixel % w, w);
        const double dy = difference_below<double>(here, pixel / w, h, w);
        own += isotropic ? sqrt(dx * dx + dy * dy) : fabs(dx) + fabs(dy);
    }
    store_block_sum(own, shared, &sums[blockIdx.x]);
}

extern "C" __global__ void sum_absolute(const Real* x, double* sums, int parts, int h, int w)
{
    __shared__ double shared[THREADS];
    sum_up<false>(x, sums, shared, parts, h, w);
}

extern "C" __global__ void sum_lengths(const Real* x, double* sums, int parts, int h, int w)
{
    __shared__ double shared[THREADS];
    sum_up<true>(x, sums, shared, parts, h, w);
}

// totals[block] = the sum of its row of `sums` (planes, parts).
extern "C" __global__ void sum_parts(const double* sums, double* totals, int parts)
{
    __shared__ double shared[THREADS];
    double own = 0;
    for (int k = threadIdx.x; k < parts; k += THREADS)
        own += sums[blockIdx.x * parts + k];
    store_block_sum(own, shared, &totals[blockIdx.x]);
}

extern "C" __global__ void anisotropic_subgradient(const Real* x, Real* s, int h, int w, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h;
    Real total = 0;
    if (column > 0)
        total += sign(difference_right<Real>(x + at - 1, column - 1, w));
    total -= sign(difference_right<Real>(x + at, column, w));
    if (row > 0)
        total += sign(difference_below<Real>(x + at - w, row - 1, h, w));
    total -= sign(difference_below<Real>(x + at, row, h, w));
    s[at] = total;
}

// A pair of differences made 1 long; (0, 0) stays.
struct Direction {
    Real x, y;

    __device__ Direction(const Real* image, int row, int column, int h, int w)
        : x(difference_right<Real>(image, column, w)), y(difference_below<Real>(image, row, h, w))
    {
        const double size = length(x, y);
        if (size != 0) {
            x = Real(x / size);
            y = Real(y / size);
        }
    }
};

// Each direction is computed by three threads. That costs less than to write it to memory and read it again.
extern "C" __global__ void isotropic_subgradient(const Real* x, Real* s, int h, int w, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h;
    const Direction here(x + at, row, column, h, w);
    Real total = 0;
    if (column > 0)
        total += Direction(x + at - 1, row, column - 1, h, w).x;
    if (column + 1 < w)
        total -= here.x;
    if (row > 0)
        total += Direction(x + at - w, row - 1, column, h, w).y;
    if (row + 1 < h)
        total -= here.y;
    s[at] = total;
}

extern "C" __global__ void gradient(const Real* x, Real* p, int h, int w, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    p[at] = difference_right<Real>(x + at, at % w, w);
    p[count + at] = difference_below<Real>(x + at, at / w % h, h, w);
}

extern "C" __global__ void gradient_adjoint(const Real* p, Real* x, int h, int w, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h;
    const Real *px = p + at, *py = p + count + at;
    Real total = 0;
    if (column > 0)
        total += px[-1];
    if (column + 1 < w)
        total -= px[0];
    if (row > 0)
        total += py[-w];
    if (row + 1 < h)
        total -= py[0];
    x[at] = total;
}

extern "C" __global__ void clip(const Real* p, Real radius, Real* result, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count)
        result[at] = p[at] > radius ? radius : p[at] < -radius ? -radius : p[at];
}

extern "C" __global__ void shorten(const Real* p, Real radius, Real* result, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const Real px = p[at], py = p[count + at];
    const double size = length(px, py), shrink = size > radius ? radius / size : 1;
    result[at] = Real(px * shrink);
    result[count + at] = Real(py * shrink);
}
