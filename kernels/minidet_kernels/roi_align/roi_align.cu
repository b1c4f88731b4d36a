// RoIAlign and its adjoint. Images are (N, C, H, W) without gaps, boxes (R, 5), bins (R, C, Ho, Wo).
//
// One thread makes one bin of one channel: number `at` of R*C*Ho*Wo. It visits the samples of the bin, and of a sample
// the four pixels around it:
//
//      low ------ high             weight of a pixel = weight of its row * weight of its column:
//       |    x     |               the nearer the sample x, the more
//      high ----- high
//
// Neighbouring threads have neighbouring bins of the same box; their pixels come from the cache.
#include "rois.cuh"

// The samples of one bin along one axis. All numbers are computed operation by operation as in geometry.py, and the
// compiler contracts none of them (--fmad=false): so every version reads the same pixels.
struct Samples {
    Real start, bin_size;  // of the bin
    int grid;              // how many samples it has
    int first;             // all before this one are outside the map
    int map_size;

    __device__ Samples(Real low, Real high, int i, int bins, int map_size, Real scale, int ratio, int aligned)
        : map_size(map_size)
    {
        const Real offset = aligned ? 0.5 : 0, box_start = low * scale - offset;
        Real size = high * scale - offset - box_start;
        if (!aligned)
            size = max(size, Real(1));
        bin_size = size / Real(bins);
        start = box_start + i * bin_size;
        grid = ratio > 0 ? ratio : (int)ceil(bin_size);
        first = 0;
        if (ratio <= 0 && start < -2) {
            // A box much larger than the map has mostly samples outside. They are at least half a pixel apart if there
            // are several; begin one pixel further out than needed, for rounding.
            const Real spacing = max(bin_size / max(grid, 1), Real(0.5));
            first = (int)floor((-2 - start) / spacing);
        }
    }

    __device__ Real position(int sample) const
    {
        return start + (sample + Real(0.5)) * bin_size / Real(max(grid, 1));
    }
};

// A place between two pixels along one axis, and their weights. A weight of 0: do not look.
struct Place {
    int pixel[2];
    Real weight[2];

    __device__ Place(Real position, int map_size)
    {
        position = max(position, Real(0));  // from -1 to 0 the first pixel is repeated
        const int low = min((int)position, map_size - 1);
        const Real part = low == map_size - 1 ? Real(0) : min(position - low, Real(1));  // beyond the last, that one
        pixel[0] = low;
        pixel[1] = min(low + 1, map_size - 1);
        weight[0] = 1 - part;
        weight[1] = part;
    }
};

// Calls visit(pixel, weight) for every pixel of every sample of the bin that lies on the map. Samples stand in order,
// so the first one beyond the map is the last one looked at.
template <class Visit>
__device__ void for_each_pixel(const Samples& rows, const Samples& columns, Visit visit)
{
    for (int s = rows.first; s < rows.grid; s++) {
        const Real y = rows.position(s);
        if (y > rows.map_size)
            break;
        if (y < -1)
            continue;
        const Place row(y, rows.map_size);
        for (int t = columns.first; t < columns.grid; t++) {
            const Real x = columns.position(t);
            if (x > columns.map_size)
                break;
            if (x < -1)
                continue;
            const Place column(x, columns.map_size);
            for (int corner = 0; corner < 4; corner++) {
                const Real weight = row.weight[corner / 2] * column.weight[corner % 2];
                if (weight > 0)
                    visit(row.pixel[corner / 2] * columns.map_size + column.pixel[corner % 2], weight);
            }
        }
    }
}

// How many samples a mean is of, those outside the map included. At least 1, so that a box without samples gives 0.
__device__ Real divisor(const Samples& rows, const Samples& columns)
{
    return max((long long)rows.grid * columns.grid, 1ll);
}

extern "C" __global__ void align(
    const Real* x, const Real* rois, Real* y,
    Real scale, int ratio, int aligned, int images, int channels, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int j = at % wo, i = at / wo % ho, channel = at / wo / ho % channels;
    const Real* box = rois + at / wo / ho / channels * 5;
    const int image = image_of(box, images);
    Real total = 0;
    if (image >= 0 && is_possible(box, scale)) {
        const Samples rows(box[2], box[4], i, ho, h, scale, ratio, aligned);
        const Samples columns(box[1], box[3], j, wo, w, scale, ratio, aligned);
        const Real* plane = x + (image * channels + channel) * h * w;
        for_each_pixel(rows, columns, [&](int pixel, Real weight) { total += weight * plane[pixel]; });
        total /= divisor(rows, columns);
    }
    y[at] = total;
}

// Gives grad[r, c, i, j] back to the pixels that bin (i, j) was made of; x_grad begins with zeros. Bins and boxes share
// pixels, so the threads must add atomically: see pooling.cu. (From the pixel's side, without atomics, every pixel
// would have to look through all boxes.)
extern "C" __global__ void adjoint(
    const Real* grad, const Real* rois, Real* x_grad,
    Real scale, int ratio, int aligned, int images, int channels, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int j = at % wo, i = at / wo % ho, channel = at / wo / ho % channels;
    const Real* box = rois + at / wo / ho / channels * 5;
    const int image = image_of(box, images);
    if (image < 0 || !is_possible(box, scale))
        return;
    const Samples rows(box[2], box[4], i, ho, h, scale, ratio, aligned);
    const Samples columns(box[1], box[3], j, wo, w, scale, ratio, aligned);
    Real* plane = x_grad + (image * channels + channel) * h * w;
    const Real share = grad[at] / divisor(rows, columns);
    for_each_pixel(rows, columns, [&](int pixel, Real weight) { atomicAdd(&plane[pixel], weight * share); });
}
