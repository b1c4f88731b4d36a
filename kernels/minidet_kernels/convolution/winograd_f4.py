"""The linear maps of Winograd's F(4 x 4, 3 x 3), on 16 channels at a time: `winograd.py` says what they are for.

In one dimension the factors are evaluated at 0, 1, -1, 2, -2 and infinity. A map of one dimension takes and gives a few
vectors; each line of its result is a row of the matrix, with what several rows share taken together. In two dimensions
it is applied to the columns of a tile and then to the rows of what comes out. Everything is written out, so that the 36
vectors of a tile can stay in registers, or close by.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.compiler import inlined, serial
from minidet_kernels.vectors import load, store

QUARTER, SIXTH, TWELFTH = np.float32(1 / 4), np.float32(1 / 6), np.float32(1 / 12)
MINUS_SIXTH = -SIXTH


# ---- one dimension ------------------------------------------------------------------------------------------------


@inlined
def _of_image(d0, d1, d2, d3, d4, d5):
    """B' d."""
    return (
        4 * d0 - 5 * d2 + d4,
        (d4 + d3) - 4 * (d1 + d2),
        (d4 - d3) + 4 * (d1 - d2),
        (d4 - d2) + 2 * (d3 - d1),
        (d4 - d2) - 2 * (d3 - d1),
        4 * d1 - 5 * d3 + d5,
    )


@inlined
def _to_image(m0, m1, m2, m3, m4, m5):
    """A' m."""
    return (
        m0 + (m1 + m2) + (m3 + m4),
        (m1 - m2) + 2 * (m3 - m4),
        (m1 + m2) + 4 * (m3 + m4),
        (m1 - m2) + 8 * (m3 - m4) + m5,
    )


@inlined
def _of_grad(y0, y1, y2, y3):
    """A y, the adjoint of `_to_image`."""
    even, odd = y0 + y2, y1 + y3
    far_even, far_odd = y0 + 4 * y2, 2 * y1 + 8 * y3
    return y0, even + odd, even - odd, far_even + far_odd, far_even - far_odd, y3


@inlined
def _of_weights(g0, g1, g2):
    """G g."""
    ends, far = g0 + g2, SIXTH * (QUARTER * g0 + g2)
    return (
        QUARTER * g0,
        MINUS_SIXTH * (ends + g1),
        MINUS_SIXTH * (ends - g1),
        far + TWELFTH * g1,
        far - TWELFTH * g1,
        g2,
    )


@inlined
def _to_weights(m0, m1, m2, m3, m4, m5):
    """G' m, the adjoint of `_of_weights`."""
    near, far = m1 + m2, m3 + m4
    return (
        QUARTER * (m0 + SIXTH * far) - SIXTH * near,
        SIXTH * (m2 - m1) + TWELFTH * (m3 - m4),
        SIXTH * (far - near) + m5,
    )


@inlined
def _image_column(x, at, row):
    return _of_image(
        load(x, at), load(x, at + row), load(x, at + 2 * row),
        load(x, at + 3 * row), load(x, at + 4 * row), load(x, at + 5 * row),
    )  # fmt: skip


@inlined
def _grad_column(x, at, row):
    return _of_grad(load(x, at), load(x, at + row), load(x, at + 2 * row), load(x, at + 3 * row))


@inlined
def _frequency_column(m, at, row):
    return _to_image(
        load(m, at), load(m, at + row), load(m, at + 2 * row),
        load(m, at + 3 * row), load(m, at + 4 * row), load(m, at + 5 * row),
    )  # fmt: skip


@inlined
def _weight_column(g, at, row):
    return _of_weights(load(g, at), load(g, at + row), load(g, at + 2 * row))


@inlined
def _product_column(m, at, row):
    return _to_weights(
        load(m, at), load(m, at + row), load(m, at + 2 * row),
        load(m, at + 3 * row), load(m, at + 4 * row), load(m, at + 5 * row),
    )  # fmt: skip


@inlined
def _store_six(v, at, step, row):
    store(v, at, row[0])
    store(v, at + step, row[1])
    store(v, at + 2 * step, row[2])
    store(v, at + 3 * step, row[3])
    store(v, at + 4 * step, row[4])
    store(v, at + 5 * step, row[5])


@inlined
def _store_four(y, at, step, row, bias):
    store(y, at, row[0] + bias)
    store(y, at + step, row[1] + bias)
    store(y, at + 2 * step, row[2] + bias)
    store(y, at + 3 * step, row[3] + bias)


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
    e = _image_column(x, at + 4 * column, row)
    f = _image_column(x, at + 5 * column, row)
    _store_six(v, to, step, _of_image(a[0], b[0], c[0], d[0], e[0], f[0]))
    _store_six(v, to + 6 * step, step, _of_image(a[1], b[1], c[1], d[1], e[1], f[1]))
    _store_six(v, to + 12 * step, step, _of_image(a[2], b[2], c[2], d[2], e[2], f[2]))
    _store_six(v, to + 18 * step, step, _of_image(a[3], b[3], c[3], d[3], e[3], f[3]))
    _store_six(v, to + 24 * step, step, _of_image(a[4], b[4], c[4], d[4], e[4], f[4]))
    _store_six(v, to + 30 * step, step, _of_image(a[5], b[5], c[5], d[5], e[5], f[5]))


@serial
def frequencies_to_image(m, at, step, bias, y, to, row, column):
    """A' m A + bias."""
    a = _frequency_column(m, at, 6 * step)
    b = _frequency_column(m, at + step, 6 * step)
    c = _frequency_column(m, at + 2 * step, 6 * step)
    d = _frequency_column(m, at + 3 * step, 6 * step)
    e = _frequency_column(m, at + 4 * step, 6 * step)
    f = _frequency_column(m, at + 5 * step, 6 * step)
    _store_four(y, to, column, _to_image(a[0], b[0], c[0], d[0], e[0], f[0]), bias)
    _store_four(y, to + row, column, _to_image(a[1], b[1], c[1], d[1], e[1], f[1]), bias)
    _store_four(y, to + 2 * row, column, _to_image(a[2], b[2], c[2], d[2], e[2], f[2]), bias)
    _store_four(y, to + 3 * row, column, _to_image(a[3], b[3], c[3], d[3], e[3], f[3]), bias)


@serial
def grad_to_frequencies(grad, at, row, column, d, to, step):
    """A y A'."""
    p = _grad_column(grad, at, row)
    q = _grad_column(grad, at + column, row)
    r = _grad_column(grad, at + 2 * column, row)
    s = _grad_column(grad, at + 3 * column, row)
    _store_six(d, to, step, _of_grad(p[0], q[0], r[0], s[0]))
    _store_six(d, to + 6 * step, step, _of_grad(p[1], q[1], r[1], s[1]))
    _store_six(d, to + 12 * step, step, _of_grad(p[2], q[2], r[2], s[2]))
    _store_six(d, to + 18 * step, step, _of_grad(p[3], q[3], r[3], s[3]))
    _store_six(d, to + 24 * step, step, _of_grad(p[4], q[4], r[4], s[4]))
    _store_six(d, to + 30 * step, step, _of_grad(p[5], q[5], r[5], s[5]))


@serial
def weights_to_frequencies(g, at, row, u, to, step):
    """G g G'."""
    a = _weight_column(g, at, 3 * row)
    b = _weight_column(g, at + row, 3 * row)
    c = _weight_column(g, at + 2 * row, 3 * row)
    _store_six(u, to, step, _of_weights(a[0], b[0], c[0]))
    _store_six(u, to + 6 * step, step, _of_weights(a[1], b[1], c[1]))
    _store_six(u, to + 12 * step, step, _of_weights(a[2], b[2], c[2]))
    _store_six(u, to + 18 * step, step, _of_weights(a[3], b[3], c[3]))
    _store_six(u, to + 24 * step, step, _of_weights(a[4], b[4], c[4]))
    _store_six(u, to + 30 * step, step, _of_weights(a[5], b[5], c[5]))


@serial
def frequencies_to_weights(m, at, step, g, to, row):
    """G' m G."""
    a = _product_column(m, at, 6 * step)
    b = _product_column(m, at + step, 6 * step)
    c = _product_column(m, at + 2 * step, 6 * step)
    d = _product_column(m, at + 3 * step, 6 * step)
    e = _product_column(m, at + 4 * step, 6 * step)
    f = _product_column(m, at + 5 * step, 6 * step)
    _store_three(g, to, row, _to_weights(a[0], b[0], c[0], d[0], e[0], f[0]))
    _store_three(g, to + 3 * row, row, _to_weights(a[1], b[1], c[1], d[1], e[1], f[1]))
    _store_three(g, to + 6 * row, row, _to_weights(a[2], b[2], c[2], d[2], e[2], f[2]))
