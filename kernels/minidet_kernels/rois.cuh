// Regions of interest in .cu files: a box is five numbers, image x1 y1 x2 y2. The host has not looked at them, since it
// would have to wait for that; so a kernel asks here before it believes them.

// In pixels of the map: LARGEST_COORDINATE of rois.py, which says why.
constexpr int LARGEST_COORDINATE = 1 << 20;

// The image that a box is on, 0 to images - 1; or -1 if there is no such image. Nothing may be read for that box then.
__device__ int image_of(const Real* box, int images)
{
    const Real image = box[0];
    const bool exists = image >= 0 && image < images && image == floor(image);  // all false for NaN
    return exists ? (int)image : -1;
}

// Whether the CPU's versions would accept its coordinates. If so they fit in an int after scaling.
__device__ bool is_possible(const Real* box, Real scale)
{
    for (int k = 1; k < 5; k++)
        if (!(fabs(box[k] * scale) <= LARGEST_COORDINATE))
            return false;
    return box[1] <= box[3] && box[2] <= box[4];
}
