// Connected components: each pixel finds the first pixel, in row-major order, of the component that it belongs to. Then
// those first pixels are counted in the same order, which gives the numbers.
//
// `parent` holds for each pixel of the masks another pixel of its component that comes before it, or itself: a forest.
// Its roots are their own parents; background is -1. Two trees are joined by hanging the later root under the earlier.
// The result does not depend on who comes first: parents only ever become smaller, so what is left as the root is the
// component's smallest pixel, its first.
//
//     label_tiles   a block joins the neighbours within its tile, in shared memory
//     join_tiles    a thread joins its pixel with neighbours in other tiles
//     find_roots    a thread follows the parents of its pixel to the root
//     number        a thread looks up its root's number (in between the host has the roots counted: a prefix sum)
//
// Sources: Komura 2015, Playne and Hawick 2018.
//
// TILE_ROWS and TILE_COLUMNS come from cuda.py; a block has one thread for each pixel of its tile.

// Other threads are changing parents, so reading one must be atomic as well: no parent comes after its pixel, and the
// minimum of the two leaves it as it is.
__device__ int root_meanwhile(int* parent, int at)
{
    int above = atomicMin(&parent[at], at);
    while (above != at) {
        at = above;
        above = atomicMin(&parent[at], at);
    }
    return at;
}

// No thread waits for another here: each round of the loop takes the later of two pixels to an earlier one, so it ends
// whatever the others do.
__device__ void join(int* parent, int a, int b)
{
    for (;;) {
        a = root_meanwhile(parent, a);
        b = root_meanwhile(parent, b);
        if (a == b)
            return;
        const int earlier = min(a, b), later = max(a, b);
        const int former = atomicMin(&parent[later], earlier);
        if (former == later)
            return;  // it was still a root, and now hangs under the earlier one
        a = former;  // somebody hung it elsewhere since we looked: that tree must be joined with ours too
        b = earlier;
    }
}

// The neighbours that come before a pixel: left, above, and with connectivity 8 above to the left and to the right.
// Pixels that come later look back at this one.
__device__ const int DOWN[4] = {0, -1, -1, -1}, RIGHT[4] = {-1, 0, -1, 1};

extern "C" __global__ void label_tiles(const bool* masks, int* parent, int neighbours, int h, int w)
{
    __shared__ int tile[TILE_ROWS * TILE_COLUMNS];  // parents within the tile
    const int tiles_in_row = (w + TILE_COLUMNS - 1) / TILE_COLUMNS, tiles_in_column = (h + TILE_ROWS - 1) / TILE_ROWS;
    const int first_column = blockIdx.x % tiles_in_row * TILE_COLUMNS;
    const int first_row = blockIdx.x / tiles_in_row % tiles_in_column * TILE_ROWS;
    const int image = blockIdx.x / tiles_in_row / tiles_in_column * h * w;  // where it begins
    const int x = threadIdx.x, y = threadIdx.y, own = y * TILE_COLUMNS + x;
    const int row = first_row + y, column = first_column + x;
    const bool inside = row < h && column < w;
    const bool set = inside && masks[image + row * w + column];

    tile[own] = set ? own : -1;
    __syncthreads();  // nobody joins before all pixels are in
    for (int k = 0; k < neighbours; k++) {
        const int up = y + DOWN[k], aside = x + RIGHT[k];
        if (set && up >= 0 && aside >= 0 && aside < TILE_COLUMNS) {
            const int other = up * TILE_COLUMNS + aside;
            if (atomicMin(&tile[other], other) >= 0)
                join(tile, own, other);
        }
    }
    __syncthreads();  // nobody looks for its root before all have joined
    if (!inside)
        return;
    int root = own;  // row-major order within the tile is row-major order in the image
    while (set && tile[root] != root)
        root = tile[root];
    const int above = first_row + root / TILE_COLUMNS, left = first_column + root % TILE_COLUMNS;
    parent[image + row * w + column] = set ? image + above * w + left : -1;
}

extern "C" __global__ void join_tiles(const bool* masks, int* parent, int neighbours, int h, int w, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count || !masks[at])
        return;
    const int column = at % w, row = at / w % h;
    for (int k = 0; k < neighbours; k++) {
        const int up = row + DOWN[k], aside = column + RIGHT[k];
        if (up < 0 || aside < 0 || aside >= w)
            continue;
        if (up / TILE_ROWS == row / TILE_ROWS && aside / TILE_COLUMNS == column / TILE_COLUMNS)
            continue;  // the same tile
        const int other = at + DOWN[k] * w + RIGHT[k];
        if (masks[other])
            join(parent, at, other);
    }
}

// roots = parents of parents ..., -1 for background; is_root: 1 for the first pixel of each component.
extern "C" __global__ void find_roots(const int* parent, int* roots, int* is_root, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    int root = parent[at];
    while (root >= 0 && parent[root] != root)
        root = parent[root];
    roots[at] = root;
    is_root[at] = root == at;
}

// numbers[at]: how many components begin at this pixel or before, those of earlier images included.
extern "C" __global__ void number(const int* roots, const int* numbers, int* labels, int pixels, int count)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count)
        return;
    const int image = at / pixels * pixels;  // where it begins
    const int earlier = image > 0 ? numbers[image - 1] : 0;
    labels[at] = roots[at] < 0 ? 0 : numbers[roots[at]] - earlier;
}
