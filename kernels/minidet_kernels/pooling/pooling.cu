// Max and average pooling. Images are (N, C, H, W) without gaps; a plane is the image of one channel, H*W numbers.
//
// One thread makes one number of the result. Neighbouring threads make neighbouring columns, so that the threads of a
// warp read the same rows of the image. Where windows overlap each pixel is read several times, but from the cache.

extern "C" __global__ void max_pool(
    const Real* x, Real* values, long long* indices,
    int h, int w, int ho, int wo,
    int window_rows, int window_columns, int stride_rows, int stride_columns,
    int padding_rows, int padding_columns, int dilation_rows, int dilation_columns, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int j = at % wo, i = at / wo % ho;
    const Real* plane = x + at / wo / ho * h * w;
    const int top = i * stride_rows - padding_rows, left = j * stride_columns - padding_columns;

    Real best = -__int_as_float(0x7f800000);  // -infinity, for which NVRTC has no name
    int index = -1;                           // of a dilated window that misses the image
    for (int r = 0; r < window_rows; r++)
        for (int s = 0; s < window_columns; s++) {
            const int row = top + r * dilation_rows, column = left + s * dilation_columns;
            if (row < 0 || row >= h || column < 0 || column >= w)
                continue;
            const Real value = plane[row * w + column];
            if (index == -1 || value > best || value != value) {  // > keeps the first of equals; NaN wins
                best = value;
                index = row * w + column;
            }
        }
    values[at] = best;
    indices[at] = index;
}

// values[n, c, i, j] = x[n, c] at the index. An index outside the image reads nothing and gives 0.
extern "C" __global__ void gather(
    const Real* x, const long long* indices, Real* values, int pixels, int outputs, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const long long index = indices[at];
    const Real* plane = x + at / outputs * pixels;
    values[at] = index >= 0 && index < pixels ? plane[index] : Real(0);
}

// Adds grad[n, c, i, j] to x_grad[n, c] at the index; x_grad begins with zeros. Two threads can have the same index:
// `x_grad[...] += g` reads, adds and writes, and of two threads that read before either wrote, one would be lost.
// atomicAdd does all three without anybody in between. In which order the threads come is open, and with it the last
// bits of the sum.
extern "C" __global__ void scatter(
    const Real* grad, const long long* indices, Real* x_grad, int pixels, int outputs, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const long long index = indices[at];
    Real* plane = x_grad + at / outputs * pixels;
    if (index >= 0 && index < pixels)
        atomicAdd(&plane[index], grad[at]);
}

extern "C" __global__ void average(
    const Real* x, const Real* window_counts, Real* y,
    int h, int w, int ho, int wo,
    int window_rows, int window_columns, int stride_rows, int stride_columns,
    int padding_rows, int padding_columns, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int j = at % wo, i = at / wo % ho;
    const Real* plane = x + at / wo / ho * h * w;
    const int top = i * stride_rows - padding_rows, left = j * stride_columns - padding_columns;

    Real total = 0;
    for (int row = max(top, 0); row < min(top + window_rows, h); row++)
        for (int column = max(left, 0); column < min(left + window_columns, w); column++)
            total += plane[row * w + column];
    y[at] = total / window_counts[i * wo + j];
}

// The adjoint adds each grad / count to all pixels of its window. Written from the pixel's side there is nothing to add
// into: a thread owns one pixel and sums over the windows that see it. No atomics, the same bits on every run.
extern "C" __global__ void average_adjoint(
    const Real* grad, const Real* window_counts, Real* x_grad,
    int h, int w, int ho, int wo,
    int window_rows, int window_columns, int stride_rows, int stride_columns,
    int padding_rows, int padding_columns, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w + padding_columns, row = at / w % h + padding_rows;  // in the padded image
    const Real* plane = grad + at / w / h * ho * wo;

    // Window i sees the rows from i * stride to i * stride + window_rows - 1.
    const int first_i = max(row - window_rows + stride_rows, 0) / stride_rows;
    const int last_i = min(row / stride_rows, ho - 1);
    const int first_j = max(column - window_columns + stride_columns, 0) / stride_columns;
    const int last_j = min(column / stride_columns, wo - 1);
    Real total = 0;
    for (int i = first_i; i <= last_i; i++)
        for (int j = first_j; j <= last_j; j++)
            total += plane[i * wo + j] / window_counts[i * wo + j];
    x_grad[at] = total;
}
