// Non-maximum suppression: greedy in three kernels, soft in one.
//
// Greedy. Boxes (n, 4) lie best first, each with a class; only boxes of one class suppress each other (`nms`: all are
// of one class). Whether a box is dropped depends on all better ones, so the boxes are taken in chunks of CHUNK, the
// best first, and cuda.py launches for each chunk:
//
//     overlaps    for every pair of the chunk a bit: do they overlap too much?           all pairs at once
//     keep_best   walks down the chunk with these bits and settles who is kept           one block
//     suppress    drops boxes behind the chunk that overlap with a box kept in it        all boxes at once
//
//                chunk 0     chunk 1     chunk 2          The bits of all pairs would be n^2 / 8 bytes, 312 MB for
//     chunk 0    overlaps    suppress    suppress         50,000 boxes. Those of one chunk are CHUNK^2 / 8, and only
//     chunk 1                overlaps    suppress         boxes that were kept are compared with later ones.
//     chunk 2                            overlaps
//
// kept[i] is true at first, and false once box i is dropped. After its chunk's keep_best it is final.
#include "box_iou/overlap.cuh"

typedef unsigned long long Word;
constexpr int BITS = 64;             // of a word: as many boxes
constexpr int WORDS = CHUNK / BITS;  // CHUNK (cuda.py) is a multiple of BITS

// One division a pair is most of the work, and most boxes lie apart: without an intersection the overlap is 0, and no
// threshold is below 0.
__device__ bool overlap_too_much(const Real* a, const Real* b, Real threshold, Real smallest)
{
    const Real intersection = intersection_of(a, b);
    if (!(intersection > 0))
        return false;
    return ratio(intersection, area(a) + area(b) - intersection, smallest) > threshold;
}

// Bit k of bits[row * WORDS + column]: box `row` of the chunk overlaps too much with box column * 64 + k, a later one.
//
// A block of 64 threads makes a square of 64 x 64 bits. Thread t has row t of it, and writes its 64 bits as one word.
// The 64 boxes of the columns are read once, into shared memory:
//
//                       column 0       column 1
//     block row 0       . x x x        x x x x         Only pairs above the diagonal: blocks below it return at
//                       . . x x        x x x x         once, and so their words are never written, nor read.
//     block row 1                      . x x x
//                                      . . x x
extern "C" __global__ void overlaps(
    const Real* boxes, const long long* classes, const bool* kept, Real threshold, Real smallest, Word* bits,
    int start, int count)
{
    __shared__ Real others[BITS][4];
    __shared__ long long other_classes[BITS];
    if (blockIdx.x < blockIdx.y)  // the whole block: nobody waits at the barrier
        return;
    const int thread = threadIdx.x;
    const int row = blockIdx.y * BITS + thread, first = blockIdx.x * BITS;
    boxes += (long long)start * 4;
    classes += start;
    if (first + thread < count) {
        for (int k = 0; k < 4; k++)
            others[thread][k] = boxes[(first + thread) * 4 + k];
        other_classes[thread] = classes[first + thread];
    }
    __syncthreads();  // nobody reads the others before all are there
    if (row >= count || !kept[start + row])  // the word of a box that was dropped before is never looked at
        return;
    Word word = 0;
    for (int k = max(row + 1 - first, 0); k < min(BITS, count - first); k++)
        if (other_classes[k] == classes[row] && overlap_too_much(boxes + row * 4, others[k], threshold, smallest))
            word |= Word(1) << k;
    bits[row * WORDS + blockIdx.x] = word;
}

// Settles kept[start] to kept[start + count - 1]. One block of 64 threads goes down the chunk, a word of 64 boxes at a
// time:
//
//     dropped    word 0   word 1   word 2   ...     shared: a bit for each box of the chunk
//                  |
//                  thread 0 walks through the 64 boxes: one whose bit is not set is kept, and sets those bits of this
//                  word that it overlaps with. This walk is short, and cannot be shared: each box waits for the last.
//                  |
//                  then each thread has some of the later words, and adds the bits of all the boxes just kept
//
// No box is settled before all the better ones are: as if they were taken one by one.
extern "C" __global__ void keep_best(const Word* bits, bool* kept, int start, int count)
{
    __shared__ Word dropped[WORDS], own[BITS], stay;
    const int thread = threadIdx.x, words = (count + BITS - 1) / BITS;
    kept += start;
    for (int word = thread; word < words; word += BITS) {
        dropped[word] = 0;
        for (int k = 0; k < min(BITS, count - word * BITS); k++)
            dropped[word] |= kept[word * BITS + k] ? 0 : Word(1) << k;
    }
    for (int word = 0; word < words; word++) {
        const int box = word * BITS + thread, boxes = min(BITS, count - word * BITS);
        if (thread < boxes)
            own[thread] = bits[box * WORDS + word];
        __syncthreads();  // own and dropped are complete
        if (thread == 0) {
            Word gone = dropped[word];
            stay = 0;
            for (int k = 0; k < boxes; k++)
                if (!(gone >> k & 1)) {
                    stay |= Word(1) << k;
                    gone |= own[k];
                }
        }
        __syncthreads();  // stay is known; who is in the next round at the first barrier has read it
        if (thread < boxes)
            kept[box] = stay >> thread & 1;
        for (int later = thread; later < words; later += BITS)
            if (later > word)
                for (int k = 0; k < boxes; k++)
                    if (stay >> k & 1)
                        dropped[later] |= bits[(word * BITS + k) * WORDS + later];
    }
}

// Drops boxes from start + CHUNK on: one thread has one of them, and compares it with the boxes kept in the chunk,
// which come through shared memory, THREADS at a time.
extern "C" __global__ void suppress(
    const Real* boxes, const long long* classes, bool* kept, Real threshold, Real smallest, int start, int count)
{
    __shared__ Real better[THREADS][4];
    __shared__ long long better_classes[THREADS];
    __shared__ bool better_kept[THREADS];
    const int thread = threadIdx.x, later = blockIdx.x * THREADS + thread;
    const int own = start + CHUNK + later;
    bool stays = later < count && kept[own];
    for (int first = 0; first < CHUNK; first += THREADS) {
        const int load = start + first + thread;
        if (first + thread < CHUNK) {
            for (int k = 0; k < 4; k++)
                better[thread][k] = boxes[load * 4ll + k];
            better_classes[thread] = classes[load];
            better_kept[thread] = kept[load];
        }
        __syncthreads();  // nobody compares before all are there
        // threads without a box, or whose box is dropped, go round as well: the others need them at the barriers
        for (int k = 0; stays && k < min(THREADS, CHUNK - first); k++)
            if (better_kept[k] && better_classes[k] == classes[own])
                stays = !overlap_too_much(better[k], boxes + own * 4ll, threshold, smallest);
        __syncthreads();  // nobody loads the next before all have compared
    }
    if (later < count)
        kept[own] = stays;
}

// Soft suppression: one block, a step for each box that is taken. Thread t has the boxes t, t + THREADS, ..., and
// nobody else touches their scores. In a step it lowers them by their overlap with the box that was taken last, and
// finds the best of them; then the best of all threads is found as a tree in shared memory:
//
//     scores    .5 .2 .9 .9 .1 .7 .3 .8     barrier, then threads 0-3 compare with what lies 4 further on
//               .5 .7 .9 .9                 barrier, then threads 0-1 with what lies 2 further on
//               .9 .9                       barrier, then thread 0: of equals the lower index
//               .9                          the index is in `indices`, in the same place
//
// Linear if sigma is 0. Scores are computed in double and rounded to Real at every step. A score of -1 marks a box that
// was taken, and is below every threshold. THREADS (cuda.py) is a power of 2.
extern "C" __global__ void soft_nms(
    const Real* boxes, Real* scores, Real iou_threshold, Real score_threshold, double sigma, Real smallest,
    long long* taken, Real* taken_scores, int* taken_count, int count)
{
    __shared__ Real best_scores[THREADS];
    __shared__ int indices[THREADS];
    const int thread = threadIdx.x;
    int last = -1, steps = 0;
    while (true) {
        Real best = -1;
        int index = count;  // nobody
        for (int i = thread; i < count; i += THREADS) {
            Real score = scores[i];
            if (!(score >= score_threshold))  // taken, NaN, or too low: scores only fall
                continue;
            const Real iou = last >= 0 ? iou_of(boxes + last * 4ll, boxes + i * 4ll, smallest) : Real(0);
            if (iou > iou_threshold) {
                const double overlap = iou;
                score = score * (sigma > 0 ? exp(-overlap * overlap / sigma) : 1 - overlap);
                scores[i] = score;
            }
            if (score >= score_threshold && score > best) {  // > keeps the first of equals
                best = score;
                index = i;
            }
        }
        best_scores[thread] = best;
        indices[thread] = index;
        __syncthreads();  // nobody reads before all have written
        for (int half = THREADS / 2; half > 0; half /= 2) {
            const int other = thread + half;
            if (thread < half && (best_scores[other] > best_scores[thread] ||
                                  (best_scores[other] == best_scores[thread] && indices[other] < indices[thread]))) {
                best_scores[thread] = best_scores[other];
                indices[thread] = indices[other];
            }
            __syncthreads();
        }
        best = best_scores[0];
        last = indices[0];
        __syncthreads();  // nobody writes the next step's before all have read this one's
        if (last == count)  // nobody is left; the same for all threads, and they leave together
            break;
        if (thread == 0) {
            taken[steps] = last;
            taken_scores[steps] = best;
        }
        if (thread == last % THREADS)
            scores[last] = -1;
        steps++;
    }
    if (thread == 0)
        *taken_count = steps;
}
