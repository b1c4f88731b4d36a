"""The linear maps of Winograd's F(2 x 2, 3 x 3), on 16 channels at a time: `winograd.py` says what they are for.

In one dimension the factors are evaluated at 0, 1, -1 and infinity. Written as in `winograd_f4.py`, and with the same
names; of all constants only 1/2 is no integer, so that hardly a digit is lost.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.compiler import inlined, serial
from minidet_kernels.vectors import load, store

HALF = np.float32(1 / 2)


# ---- one dimension ------------------------------------------------------------------------------------------------


@inlined
def _of_image(d0, d1, d2, d3):
    """B' d."""
    return d0 - d2, d1 + d2, d2 - d1, d3 - d1


@inlined
def _to_image(m0, m1, m2, m3):
    """A' m."""
    return m0 + (m1 + m2), (m1 - m2) + m3


@inlined
def _of_grad(y0, y1):
    """A y, the adjoint of `_to_image`."""
    return y0, y0 + y1, y0 - y1, y1


@inlined
def _of_weights(g0, g1, g2):
    """G g."""
    ends = g0 + g2
    return g0, HALF * (ends + g1), HALF * (ends - g1), g2


@inlined
def _to_weights(m0, m1, m2, m3):
    """G' m, the adjoint of `_of_weights`."""
    near = HALF * (m1 + m2)
    return m0 + near, HALF * (m1 - m2), near + m3


@inlined
def _image_column(x, at, row):
    return _of_image(load(x, at), load(x, at + row), load(x, at + 2 * row), load(x, at + 3 * row))


@inlined
def _grad_column(x, at, row):
    return _of_grad(load(x, at), load(x, at + row))


@inlined
def _frequency_column(m, at, row):
    return _to_image(load(m, at), load(m, at + row), load(m, at + 2 * row), load(m, at + 3 * row))


@inlined
def _weight_column(g, at, row):
    return _of_weights(load(g, at), load(g, at + row), load(g, at + 2 * row))


@inlined
def _product_column(m, at, row):
    return _to_weights(load(m, at), load(m, at + row), load(m, at + 2 * row), load(m, at + 3 * row))


@inlined
def _store_four(v, at, step, row):
    store(v, at, row[0])
    store(v, at + step, row[1])
    store(v, at + 2 * step, row[2])
    store(v, at + 3 * step, row[3])


@inlined
def _store_two(y, at, step, row, bias):
    store(y, at, row[0] + bias)
    store(y, at + step, row[1] + bias)


@inlined
def _store_three(g, at, step, row):
    store(g, at, row[0])
    store(g, at + step, row[1])
    store(g, at + 2 * step, row[2])


# ---- two dimensions -----------------------------------------------------------------------------------------------


@serial
def image_to_frequencies(x, at, row, column, v, to, step):
    """B' d B: first the columns of the tile, then the rows of what comes out."""
    a = _image_column(x, at, row)
    b = _image_column(x, at + column, row)
    c = _image_column(x, at + 2 * column, row)
    d = _image_column(x, at + 3 * column, row)
    _store_four(v, to, step, _of_image(a[0], b[0], c[0], d[0]))
    _store_four(v, to + 4 * step, step, _of_image(a[1], b[1], c[1], d[1]))
    _store_four(v, to + 8 * step, step, _of_image(a[2], b[2], c[2], d[2]))
    _store_four(v, to + 12 * step, step, _of_image(a[3], b[3], c[3], d[3]))


@serial
def frequencies_to_image(m, at, step, bias, y, to, row, column):
    """A' m A + bias."""
    a = _frequency_column(m, at, 4 * step)
    b = _frequency_column(m, at + step, 4 * step)
    c = _frequency_column(m, at + 2 * step, 4 * step)
    d = _frequency_column(m, at + 3 * step, 4 * step)
    _store_two(y, to, column, _to_image(a[0], b[0], c[0], d[0]), bias)
    _store_two(y, to + row, column, _to_image(a[1], b[1], c[1], d[1]), bias)


@serial
def grad_to_frequencies(grad, at, row, column, d, to, step):
    """A y A'."""
    p = _grad_column(grad, at, row)
    q = _grad_column(grad, at + column, row)
    _store_four(d, to, step, _of_grad(p[0], q[0]))
    _store_four(d, to + 4 * step, step, _of_grad(p[1], q[1]))
    _store_four(d, to + 8 * step, step, _of_grad(p[2], q[2]))
    _store_four(d, to + 12 * step, step, _of_grad(p[3], q[3]))


@serial
def weights_to_frequencies(g, at, row, u, to, step):
    """G g G'."""
    a = _weight_column(g, at, 3 * row)
    b = _weight_column(g, at + row, 3 * row)
    c = _weight_column(g, at + 2 * row, 3 * row)
    _store_four(u, to, step, _of_weights(a[0], b[0], c[0]))
    _store_four(u, to + 4 * step, step, _of_weights(a[1], b[1], c[1]))
    _store_four(u, to + 8 * step, step, _of_weights(a[2], b[2], c[2]))
    _store_four(u, to + 12 * step, step, _of_weights(a[3], b[3], c[3]))


@serial
def frequencies_to_weights(m, at, step, g, to, row):
    """G' m G."""
    a = _product_column(m, at, 4 * step)
    b = _product_column(m, at + step, 4 * step)
    c = _product_column(m, at + 2 * step, 4 * step)
    d = _product_column(m, at + 3 * step, 4 * step)
    _store_three(g, to, row, _to_weights(a[0], b[0], c[0], d[0]))
    _store_three(g, to + 3 * row, row, _to_weights(a[1], b[1], c[1], d[1]))
    _store_three(g, to + 6 * row, row, _to_weights(a[2], b[2], c[2], d[2]))
