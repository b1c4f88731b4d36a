// Batch normalisation: sums over each channel, then one thread for each number of the result.
//
// A channel's sum has N*H*W terms, and every block makes one channel's. Each thread adds up every 256th term, in double
// as the contract says; then the 256 sums are added as a tree in shared memory, halving the number of threads:
//
//     sums    a b c d e f g h        barrier, then threads 0-3 add what lies 4 further on
//             a+e b+f c+g d+h        barrier, then threads 0-1 add what lies 2 further on
//             ...                    always in this order: the same bits on every run
//
// THREADS (cuda.py) is a power of 2.

// The sum of what each thread of the block brings, in every thread. `sums` is shared memory for THREADS numbers.
__device__ double block_sum(double own, double* sums)
{
    const int thread = threadIdx.x;
    sums[thread] = own;
    __syncthreads();  // nobody reads before all have written
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half)
            sums[thread] += sums[thread + half];
        __syncthreads();
    }
    const double total = sums[0];
    __syncthreads();  // nobody begins the next sum before all have read this one
    return total;
}

// Where the i-th number of a channel lies: (N, C, H*W) without gaps, i counts over N and H*W.
__device__ int offset(int i, int channel, int channels, int pixels)
{
    return (i / pixels * channels + channel) * pixels + i % pixels;
}

extern "C" __global__ void mean_and_variance(
    const Real* x, Real* mean, Real* variance, int channels, int pixels, int count)
{
    __shared__ double sums[THREADS];
    const int channel = blockIdx.x;
    double total = 0;
    for (int i = threadIdx.x; i < count; i += THREADS)
        total += x[offset(i, channel, channels, pixels)];
    const Real center = block_sum(total, sums) / count;

    double squares = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) {
        const Real difference = x[offset(i, channel, channels, pixels)] - center;
        squares += difference * difference;
    }
    const double all_squares = block_sum(squares, sums);
    if (threadIdx.x == 0) {
        mean[channel] = center;
        variance[channel] = all_squares / count;
    }
}

extern "C" __global__ void normalize(
    const Real* x, const Real* weight, const Real* bias, const Real* mean, const Real* variance, Real eps, Real* y,
    int channels, int pixels, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const int c = i / pixels % channels;
    const Real z = (x[i] - mean[c]) / sqrt(variance[c] + eps);
    y[i] = weight[c] * z + bias[c];
}

// d bias = sum of grad and d weight = sum of grad z, for one channel a block.
extern "C" __global__ void sums_of_gradients(
    const Real* grad, const Real* x, const Real* mean, const Real* std, Real* weight_grad, Real* bias_grad,
    int channels, int pixels, int count)
{
    __shared__ double sums[THREADS];
    const int channel = blockIdx.x;
    double of_grad = 0, of_product = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) {
        const int at = offset(i, channel, channels, pixels);
        const Real z = (x[at] - mean[channel]) / std[channel];
        of_grad += grad[at];
        of_product += grad[at] * z;
    }
    of_grad = block_sum(of_grad, sums);
    of_product = block_sum(of_product, sums);
    if (threadIdx.x == 0) {
        bias_grad[channel] = of_grad;
        weight_grad[channel] = of_product;
    }
}

extern "C" __global__ void input_gradient(
    const Real* grad, const Real* x, const Real* weight, const Real* mean, const Real* std,
    const Real* weight_grad, const Real* bias_grad, Real* x_grad,
    int channels, int pixels, int per_channel, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const int c = i / pixels % channels;
    const Real z = (x[i] - mean[c]) / std[c];
    x_grad[i] = weight[c] / std[c] * (grad[i] - bias_grad[c] / per_channel - z * (weight_grad[c] / per_channel));
}
