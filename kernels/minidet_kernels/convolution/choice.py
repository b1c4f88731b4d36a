"""Which way of 3 x 3 convolution is fastest for which shape, as `python -m benchmarks.convolution_choice` measured it.

On two AVX-512 cores, with 16 to 512 channels and images of 7 x 7 to 56 x 56, alone and by four. "Tiles" are those of
4 x 4 results, of all images together; the threads share out either tiles or output channels (`winograd.py`).

    C K               fewer than 8 tiles     8 to 31             32 to 99            100 and more
    below 64^2        direct                 direct              4 x 4, by tiles     4 x 4, by tiles
    64^2 and more     2 x 2, by outputs      4 x 4, by outputs   4 x 4, by outputs   4 x 4, by tiles
    256^2 and more    2 x 2, by outputs      4 x 4, by outputs   4 x 4, by outputs   4 x 4, by outputs

For the weight gradient the last row begins at 128^2. Where two ways were equally fast the more exact one is taken.
"""

from __future__ import annotations

from minidet_kernels.arguments import Pair
from minidet_kernels.convolution.winograd_tiles import Method
from minidet_kernels.simd import ROWS

# Below, all ways take as long as their start, 0.02 to 0.05 ms: then the exact one.
FEWEST_TILES = 32
FEWEST_WEIGHTS = 64 * 64
# More tiles are several blocks, and by outputs the weights are transformed for each block anew.
LARGEST_BLOCK = 100
# By tiles every thread reads the frequencies of all weights, 9 MB of them at 256 x 256 channels.
LARGEST_BY_TILES = 256 * 256
# The weight gradient writes them too, every thread its own.
LARGEST_GRADIENT_BY_TILES = 128 * 128


def forward(n: int, c: int, k: int, size: Pair) -> Method | None:
    """For conv2d with results of `size`, and with c and k exchanged for its input gradient; None is the direct sum."""
    return _method(_tiles(n, size), c * k, LARGEST_BY_TILES)


def weight_grad(n: int, c: int, k: int, size: Pair) -> Method | None:
    """For the weight gradient from a grad of `size`."""
    return _method(_tiles(n, size), c * k, LARGEST_GRADIENT_BY_TILES)


def _method(tiles: int, weights: int, largest_by_tiles: int) -> Method | None:
    if weights < FEWEST_WEIGHTS:
        return Method(4, by_outputs=False) if tiles >= FEWEST_TILES else None
    if tiles < ROWS:  # a product has rows for 8: four times as many small tiles fill them
        return Method(2, by_outputs=True)
    return Method(4, by_outputs=tiles < LARGEST_BLOCK or weights >= largest_by_tiles)


def _tiles(n: int, size: Pair) -> int:
    return n * -(-size[0] // 4) * -(-size[1] // 4)
