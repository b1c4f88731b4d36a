// Overlaps of all pairs of boxes1 (A, 4) and boxes2 (B, 4): result (A, B), one thread a pair.
//
//     threads 0 1 2 ... B-1      box 0 of boxes1 with box 0, 1, 2, ... of boxes2
//             B B+1 ... 2B-1     box 1 of boxes1
//
// Neighbouring threads share their first box, read neighbouring second ones, and write neighbouring results.
#include "box_iou/overlap.cuh"

extern "C" __global__ void box_iou(
    const Real* boxes1, const Real* boxes2, Real smallest, Real* iou, int columns, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    iou[at] = iou_of(boxes1 + at / columns * 4, boxes2 + at % columns * 4, smallest);
}

extern "C" __global__ void generalized_box_iou(
    const Real* boxes1, const Real* boxes2, Real smallest, Real* giou, int columns, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const Real* a = boxes1 + at / columns * 4;
    const Real* b = boxes2 + at % columns * 4;
    const Real intersection = intersection_of(a, b);
    const Real whole = area(a) + area(b) - intersection;
    const Real hull = (larger(a[2], b[2]) - smaller(a[0], b[0])) * (larger(a[3], b[3]) - smaller(a[1], b[1]));
    giou[at] = ratio(intersection, whole, smallest) - ratio(hull - whole, hull, smallest);
}
