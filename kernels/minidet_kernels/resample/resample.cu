// Resizing and affine warping, and their adjoints. Images are (N, C, H, W) without gaps; a plane is the image of one
// channel, H*W numbers. One thread makes one number of the result, and neighbouring threads neighbouring columns.
//
// The adjoints hand each gradient back to the pixels that it was made of. Written that way, as a scatter, many threads
// would add to one pixel: atomics, and sums whose last bits change from run to run. Here they are gathered instead. A
// thread owns a pixel and looks up which results looked at it, in a fixed order. In resizing these are a rectangle that
// the host has found. In warping the inverse matrix says where they are, roughly, and the weight itself exactly:
//
//     input:  the results that look at pixel p          results: the inverse maps that square to a parallelogram,
//     lie, on the input, in this square around it       the thread visits the box around it
//
//           p - 1        p + 1                                  +-----/\----+
//             +-----------+                                     |   /    \  |
//             |           |              inverse                | /  i,j   \|
//             |     p     |             -------->               |\        / |
//             |           |                                     |  \    /   |
//             +-----------+                                     +----\/-----+
//
// For a rotation that visits twice as many results as look at p, for a warp to a coarse grid one or two a copy. And
// solvers that apply the adjoint thousands of times come to the same bits every time.

// The weight of result `at` of an axis, for its first (0) or second (1) pixel. Both tables are (2, outputs).
struct Taps {
    const int* index;
    const Real* weight;
    int outputs;

    __device__ int pixel(int tap, int at) const { return index[tap * outputs + at]; }
    __device__ Real share(int tap, int at) const { return weight[tap * outputs + at]; }
};

extern "C" __global__ void resize_bilinear(
    const Real* x, const int* row_index, const Real* row_weight, const int* column_index, const Real* column_weight,
    Real* y, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const Taps rows = {row_index, row_weight, ho}, columns = {column_index, column_weight, wo};
    const int j = at % wo, i = at / wo % ho;
    const Real* plane = x + at / wo / ho * h * w;
    Real total = 0;
    for (int r = 0; r < 2; r++)
        for (int s = 0; s < 2; s++)
            total += rows.share(r, i) * columns.share(s, j) * plane[rows.pixel(r, i) * w + columns.pixel(s, j)];
    y[at] = total;
}

// The results that look at row `row` are among those from first_row[row] to before last_row[row]; columns likewise. At
// the border both pixels of a result are the same one, which then gets both shares.
extern "C" __global__ void resize_bilinear_adjoint(
    const Real* grad, const int* row_index, const Real* row_weight, const int* column_index, const Real* column_weight,
    const int* first_row, const int* last_row, const int* first_column, const int* last_column,
    Real* x_grad, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const Taps rows = {row_index, row_weight, ho}, columns = {column_index, column_weight, wo};
    const int column = at % w, row = at / w % h;
    const Real* plane = grad + at / w / h * ho * wo;
    Real total = 0;
    for (int i = first_row[row]; i < last_row[row]; i++)
        for (int j = first_column[column]; j < last_column[column]; j++)
            for (int r = 0; r < 2; r++)
                for (int s = 0; s < 2; s++)
                    if (rows.pixel(r, i) == row && columns.pixel(s, j) == column)
                        total += rows.share(r, i) * columns.share(s, j) * plane[i * wo + j];
    x_grad[at] = total;
}

extern "C" __global__ void resize_nearest(
    const Real* x, const int* rows, const int* columns, Real* y, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const Real* plane = x + at / wo / ho * h * w;
    y[at] = plane[rows[at / wo % ho] * w + columns[at % wo]];
}

// The copies of row `row` are those from first_row[row] to before first_row[row + 1]; columns likewise.
extern "C" __global__ void resize_nearest_adjoint(
    const Real* grad, const int* first_row, const int* first_column, Real* x_grad,
    int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h;
    const Real* plane = grad + at / w / h * ho * wo;
    Real total = 0;
    for (int i = first_row[row]; i < first_row[row + 1]; i++)
        for (int j = first_column[column]; j < first_column[column + 1]; j++)
            total += plane[i * wo + j];
    x_grad[at] = total;
}

// Where result (i, j) of a warp looks: (u, v), and the first of the four pixels around it. All in double, as the
// contract says; positions may be far outside the image, where an int could not hold them.
struct Look {
    double u, v, left, top;

    __device__ Look(const double* matrix, int i, int j)
        : u(matrix[0] * j + matrix[1] * i + matrix[2]), v(matrix[3] * j + matrix[4] * i + matrix[5]),
          left(floor(u)), top(floor(v))
    {
    }
    // Is the pixel one of the four?
    __device__ bool sees(int row, int column) const
    {
        return (row == top || row == top + 1) && (column == left || column == left + 1);
    }
    __device__ double weight(double row, double column) const { return (1 - fabs(v - row)) * (1 - fabs(u - column)); }
};

// x has as many images as there are matrices, or one for all.
extern "C" __global__ void affine_warp(
    const Real* x, const double* matrices, Real* y,
    int images, int channels, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int j = at % wo, i = at / wo % ho, c = at / wo / ho % channels, n = at / wo / ho / channels;
    const Real* plane = x + ((images > 1 ? n : 0) * channels + c) * h * w;
    const Look look(matrices + 6 * n, i, j);
    Real total = 0;
    for (int r = 0; r < 2; r++)
        for (int s = 0; s < 2; s++) {
            const double row = look.top + r, column = look.left + s;
            if (row >= 0 && row < h && column >= 0 && column < w)
                total += Real(look.weight(row, column)) * plane[(int)row * w + (int)column];
        }
    y[at] = total;
}

// The results (i, j) among which those are that look at pixel (row, column): i from `top` to `bottom`, j from `left` to
// `right`. `search` is (2, 4): j = s[0] * column + s[1] * row + s[2], at most s[3] away; i likewise.
struct Box {
    int top, bottom, left, right;

    __device__ Box(const double* search, int row, int column, int ho, int wo)
    {
        limit(search, row, column, wo, left, right);
        limit(search + 4, row, column, ho, top, bottom);
    }
    __device__ static void limit(const double* s, int row, int column, int size, int& first, int& last)
    {
        const double middle = s[0] * column + s[1] * row + s[2];
        first = (int)min(max(ceil(middle - s[3]), 0.0), (double)size);
        last = (int)max(min(floor(middle + s[3]), size - 1.0), -1.0);
    }
};

extern "C" __global__ void affine_warp_adjoint(
    const Real* grad, const double* matrices, const double* searches, Real* x_grad,
    int matrix_count, int images, int channels, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h, c = at / w / h % channels, image = at / w / h / channels;
    const int first = images > 1 ? image : 0, last = images > 1 ? image + 1 : matrix_count;
    Real total = 0;
    for (int n = first; n < last; n++) {
        const Real* plane = grad + (n * channels + c) * ho * wo;
        const Box box(searches + 8 * n, row, column, ho, wo);
        for (int i = box.top; i <= box.bottom; i++)
            for (int j = box.left; j <= box.right; j++) {
                const Look look(matrices + 6 * n, i, j);
                if (look.sees(row, column))
                    total += Real(look.weight(row, column)) * plane[i * wo + j];
            }
    }
    x_grad[at] = total;
}

// gram (5, H, W): entry e joins pixel (row, column) to the neighbour (row + down, column + right). The results that
// look at both are among those that look at the first.
extern "C" __global__ void affine_warp_gram(
    const double* matrices, const double* searches, double* gram,
    int matrix_count, int h, int w, int ho, int wo, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h, entry = at / w / h;
    const int down = entry >= 2, right = entry == 0 ? 0 : entry == 1 ? 1 : entry - 3;
    double total = 0;
    if (row + down < h && column + right >= 0 && column + right < w)
        for (int n = 0; n < matrix_count; n++) {
            const Box box(searches + 8 * n, row, column, ho, wo);
            for (int i = box.top; i <= box.bottom; i++)
                for (int j = box.left; j <= box.right; j++) {
                    const Look look(matrices + 6 * n, i, j);
                    if (look.sees(row, column) && look.sees(row + down, column + right))
                        total += look.weight(row, column) * look.weight(row + down, column + right);
                }
        }
    gram[at] = total;
}

// Of the 3 x 3 neighbours those that come later have their numbers at this pixel, and the earlier ones at their own:
//
//     4' 3' 2'
//     1' 0  1        ' : gram[e] of the neighbour
//     2  3  4
extern "C" __global__ void gram_product(const Real* x, const Real* gram, Real* y, int h, int w, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int column = at % w, row = at / w % h, pixel = row * w + column, pixels = h * w;
    const Real* plane = x + at / w / h * pixels;
    Real total = gram[pixel] * plane[pixel];
    for (int entry = 1; entry < 5; entry++) {
        const int down = entry >= 2, right = entry == 1 ? 1 : entry - 3, step = down * w + right;
        if (row + down < h && column + right >= 0 && column + right < w)
            total += gram[entry * pixels + pixel] * plane[pixel + step];
        if (row - down >= 0 && column - right >= 0 && column - right < w)
            total += gram[entry * pixels + pixel - step] * plane[pixel - step];
    }
    y[at] = total;
}
