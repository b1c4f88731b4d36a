// Overlaps of two boxes, for all .cu files that need them. A box is four numbers, x1 y1 x2 y2.
//
// Every operation is rounded by itself (--fmad=false), in the order of reference.py: the same bits as there.

// Written as a comparison, not as fmax: with NaN, which no version promises anything about, it is one instruction too.
__device__ Real larger(Real a, Real b)
{
    return a > b ? a : b;
}

__device__ Real smaller(Real a, Real b)
{
    return a < b ? a : b;
}

__device__ Real area(const Real* box)
{
    return (box[2] - box[0]) * (box[3] - box[1]);
}

__device__ Real intersection_of(const Real* a, const Real* b)
{
    const Real left = larger(a[0], b[0]), top = larger(a[1], b[1]);
    const Real right = larger(smaller(a[2], b[2]), left);  // boxes apart: the sides are 0
    const Real bottom = larger(smaller(a[3], b[3]), top);
    return (right - left) * (bottom - top);
}

// part / whole, and 0 where the whole is below the smallest normal number, or NaN.
__device__ Real ratio(Real part, Real whole, Real smallest)
{
    return whole >= smallest ? part / whole : Real(0);
}

__device__ Real iou_of(const Real* a, const Real* b, Real smallest)
{
    const Real intersection = intersection_of(a, b);
    return ratio(intersection, area(a) + area(b) - intersection, smallest);
}
