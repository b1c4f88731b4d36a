// RoIPool, and its gather and scatter. Images are (N, C, H, W) without gaps, boxes (R, 5), bins (R, C, Ho, Wo).
//
// One thread makes one bin of one channel: number `at` of R*C*Ho*Wo. Neighbouring threads have neighbouring bins of the
// same box, which lie in the same rows of the image, and overlap; their pixels come from the cache.
#include "rois.cuh"

// The plane (H, W) of the image that bin number `at` reads; nullptr if the box is on no image.
template <class Number>
__device__ Number* plane_of(Number* x, const Real* rois, int at, int images, int channels, int bins, int pixels)
{
    const int channel = at / bins % channels, box = at / bins / channels;
    const int image = image_of(rois + box * 5, images);
    return image < 0 ? nullptr : x + (image * channels + channel) * pixels;
}

struct Range {
    int start, stop;
};

// The pixels of bin i of `bins` along one axis: as bin_ranges in geometry.py. `round` rounds halves away from 0.
__device__ Range bin_range(Real low, Real high, int i, int bins, int map_size, Real scale)
{
    const int first = (int)round(low * scale), last = (int)round(high * scale);
    const Real bin_size = Real(last - first + 1) / Real(bins);
    const int start = (int)floor(i * bin_size) + first, stop = (int)ceil((i + 1) * bin_size) + first;
    return {min(max(start, 0), map_size), min(max(stop, 0), map_size)};
}

extern "C" __global__ void roi_pool(
    const Real* x, const Real* rois, Real* values, int* argmax,
    Real scale, int images, int channels, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int j = at % wo, i = at / wo % ho;
    const Real* box = rois + at / wo / ho / channels * 5;
    const Real* plane = plane_of(x, rois, at, images, channels, ho * wo, h * w);

    Real best = 0;
    int index = -1;  // of a bin without pixels
    if (plane != nullptr && is_possible(box, scale)) {
        const Range columns = bin_range(box[1], box[3], j, wo, w, scale);
        const Range rows = bin_range(box[2], box[4], i, ho, h, scale);
        for (int row = rows.start; row < rows.stop; row++)
            for (int column = columns.start; column < columns.stop; column++) {
                const Real value = plane[row * w + column];
                if (index == -1 || value > best || value != value) {  // > keeps the first of equals; NaN wins
                    best = value;
                    index = row * w + column;
                }
            }
    }
    values[at] = best;
    argmax[at] = index;
}

// values[r, c, i, j] = x[n, c] at argmax, n being the image of box r. An argmax outside the map reads nothing, gives 0.
extern "C" __global__ void gather(
    const Real* x, const Real* rois, const int* argmax, Real* values,
    int images, int channels, int bins, int pixels, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int index = argmax[at];
    const Real* plane = plane_of(x, rois, at, images, channels, bins, pixels);
    values[at] = plane != nullptr && index >= 0 && index < pixels ? plane[index] : Real(0);
}

// Adds grad[r, c, i, j] to x_grad[n, c] at argmax; x_grad begins with zeros. Many boxes can have their maximum in one
// pixel, so the threads must add atomically: see pooling.cu. (From the pixel's side, without atomics, every pixel would
// have to look through all boxes.)
extern "C" __global__ void scatter(
    const Real* grad, const Real* rois, const int* argmax, Real* x_grad,
    int images, int channels, int bins, int pixels, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int index = argmax[at];
    Real* plane = plane_of(x_grad, rois, at, images, channels, bins, pixels);
    if (plane != nullptr && index >= 0 && index < pixels)
        atomicAdd(&plane[index], grad[at]);
}
