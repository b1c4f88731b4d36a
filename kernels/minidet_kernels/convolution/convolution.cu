// Convolution and its two gradients, of any geometry and dtype: product.cuh explains how, and should be read first.
// winograd.cuh has the method of fewer multiplications, for 3 x 3 kernels with stride 1.
#include "convolution/product.cuh"

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

#include "convolution/winograd.cuh"
