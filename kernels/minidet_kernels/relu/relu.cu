// The rectified linear unit: one thread an element. Neighbouring threads work on neighbouring numbers, so that the 32
// threads of a warp read one piece of memory at once.

extern "C" __global__ void relu(const Real* x, Real* y, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;  // the last block has more threads than there are elements left
    const Real value = x[i];
    y[i] = value > 0 || value != value ? value : Real(0);  // NaN alone is unequal to itself
}

extern "C" __global__ void relu_backward(const Real* grad, const Real* y, Real* x_grad, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    x_grad[i] = y[i] > 0 ? grad[i] : Real(0);
}
