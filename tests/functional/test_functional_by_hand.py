"""The functions of the layers on numbers worked out by hand, at extreme values, and with wrong arguments."""

import numpy as np
import pytest

import minidet
import minidet.functional as F
from minidet import tensor


def leaf(values, dtype=np.float64):
    return tensor(values, dtype=dtype, requires_grad=True)


def gradient(y, x, cotangent=None):
    return minidet.grad(y, x, cotangent)[0].data


IMAGE = np.arange(9.0).reshape(1, 1, 3, 3)
KERNEL = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])


def test_convolution_and_its_gradients():
    x, weight, bias = leaf(IMAGE), leaf(KERNEL), leaf([0.5])
    y = F.conv2d(x, weight, bias)
    np.testing.assert_array_equal(y.data[0, 0], [[27.5, 37.5], [57.5, 67.5]])  # 0*1 + 1*2 + 3*3 + 4*4 + 0.5, ...
    cotangent = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    dx, dw, db = minidet.grad(y, [x, weight, bias], cotangent)
    # each cotangent spreads the kernel over the pixels that it saw: corners see one, the centre all four
    np.testing.assert_array_equal(dx.data[0, 0], [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]])
    # each weight meets the image shifted by its own place: 0*1 + 1*10 + 3*100 + 4*1000, ...
    np.testing.assert_array_equal(dw.data[0, 0], [[4310, 5421], [7643, 8754]])
    np.testing.assert_array_equal(db.data, [1111])


def test_transposed_convolution_spreads_each_pixel():
    x = leaf([[[[1.0, 10.0]]]])
    y = F.conv_transpose2d(x, leaf(KERNEL), leaf([0.5]), stride=2)
    np.testing.assert_array_equal(y.data[0, 0], [[1.5, 2.5, 10.5, 20.5], [3.5, 4.5, 30.5, 40.5]])
    assert F.conv_transpose2d(x, leaf(KERNEL), stride=2, output_padding=1).shape == (1, 1, 3, 5)


def test_output_padding_as_large_as_the_stride_is_refused():
    with pytest.raises(ValueError, match="output_padding from 0 to less than the stride, got 2 with stride 2"):
        F.conv_transpose2d(leaf([[[[1.0]]]]), leaf(KERNEL), stride=2, output_padding=2)
    with pytest.raises(ValueError, match=r"the same C, got \(1, 1, 3, 3\) and \(2, 1, 1, 1\)"):
        F.conv_transpose2d(leaf(IMAGE), leaf(np.ones((2, 1, 1, 1))))


def test_channels_last_images_are_recognised_in_the_message():
    with pytest.raises(ValueError, match=r"looks channels-last, use input.transpose\(0, 3, 1, 2\)"):
        F.conv2d(leaf(np.ones((2, 8, 8, 3))), leaf(np.ones((4, 3, 3, 3))))


def test_max_pooling_gives_ties_to_the_first():
    x = leaf([[[[1.0, 5.0, 2.0, 2.0], [5.0, 3.0, 2.0, 2.0]]]])
    y = F.max_pool2d(x, 2)
    np.testing.assert_array_equal(y.data, [[[[5, 2]]]])
    np.testing.assert_array_equal(gradient(y, x, np.array([[[[7.0, 9.0]]]])), [[[[0, 7, 9, 0], [0, 0, 0, 0]]]])


def test_overlapping_windows_add_their_gradients():
    x = leaf([[[[1.0, 9.0, 1.0]]]])
    y = F.max_pool2d(x, (1, 2), stride=1)
    np.testing.assert_array_equal(gradient(y, x, np.array([[[[2.0, 3.0]]]])), [[[[0, 5, 0]]]])


def test_average_pooling_counts_padding_only_when_asked():
    x = leaf([[[[4.0, 8.0]]]])
    window = {"kernel_size": (1, 2), "stride": 1, "padding": (0, 1)}
    np.testing.assert_array_equal(F.avg_pool2d(x, **window).data, [[[[2, 6, 4]]]])
    np.testing.assert_array_equal(F.avg_pool2d(x, **window, count_include_pad=False).data, [[[[4, 6, 8]]]])


def test_adaptive_average_pooling_by_hand():
    x = np.array([[[[1.0, 2, 3, 4, 5]]]])
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, (1, 5)), x)
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, 1), [[[[3]]]])
    # Bins 0..1, 1..3, 3..4: 5 / 3 is not whole, neighbours share a column.
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, (1, 3)), [[[[1.5, 3, 4.5]]]])
    # And a map may grow: each of two rows sees the only one.
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, (2, 1)), [[[[3], [3]]]])


def test_adaptive_average_pooling_keeps_infinities_in_their_bins():
    x = np.array([[[[np.inf, 2.0, 3.0, 4.0, 5.0]]]])
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, (1, 3)), [[[[np.inf, 3, 4.5]]]])


def test_adaptive_average_pooling_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"expected output_size to be an integer >= 1 .*, got 0"):
        F.adaptive_avg_pool2d(np.ones((1, 1, 2, 2)), 0)
    with pytest.raises(ValueError, match=r"adaptive_avg_pool2d: .* at least one pixel, got \(1, 1, 0, 2\)"):
        F.adaptive_avg_pool2d(np.ones((1, 1, 0, 2)), 1)
    with pytest.raises(ValueError, match=r"expected input \(N, C, H, W\), got \(3, 4\)"):
        F.adaptive_avg_pool2d(np.ones((3, 4)), 1)


def test_global_pooling():
    x = leaf([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, -1.0], [-2.0, -3.0]]]])
    np.testing.assert_array_equal(F.global_avg_pool2d(x).data, [[3, -1.5]])
    np.testing.assert_array_equal(F.global_max_pool2d(x).data, [[6, 0]])


def test_linear_by_hand():
    x, weight, bias = (
        leaf([[1.0, 2.0], [3.0, 4.0]]),
        leaf([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        leaf([0.0, 10.0, 100.0]),
    )
    y = F.linear(x, weight, bias)
    np.testing.assert_array_equal(y.data, [[1, 12, 103], [3, 14, 107]])
    cotangent = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    dx, dw, db = minidet.grad(y, [x, weight, bias], cotangent)
    np.testing.assert_array_equal(dx.data, [[4, 5], [40, 50]])
    np.testing.assert_array_equal(dw.data, [[31, 42], [62, 84], [93, 126]])
    np.testing.assert_array_equal(db.data, [11, 22, 33])


def test_linear_with_unfitting_weights_is_refused_with_both_shapes():
    with pytest.raises(
        ValueError, match=r"linear: expected input \(\.\.\., C\) and weight \(K, C\).*\(2, 3\), \(4, 2\)"
    ):
        F.linear(leaf(np.ones((2, 3))), leaf(np.ones((4, 2))))


def test_batch_norm_by_hand_and_its_running_statistics():
    x = leaf([[[[1.0, 3.0]]], [[[5.0, 7.0]]]])  # mean 4, variance 5, unbiased 20/3
    mean, var = np.array([0.0]), np.array([1.0])
    y = F.batch_norm(x, mean, var, leaf([2.0]), leaf([10.0]), training=True, momentum=0.1, eps=0.0)
    np.testing.assert_allclose(y.data.ravel(), 10 + 2 * np.array([-3, -1, 1, 3]) / np.sqrt(5))
    np.testing.assert_allclose([mean[0], var[0]], [0.4, 0.9 + 0.1 * 20 / 3])
    y = F.batch_norm(x, np.array([4.0]), np.array([25.0]), leaf([2.0]), leaf([10.0]), eps=0.0)
    np.testing.assert_allclose(y.data.ravel(), 10 + 2 * np.array([-3, -1, 1, 3]) / 5)


def test_batch_norm_of_one_value_a_channel_cannot_train_and_an_empty_batch_can():
    statistics = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    with pytest.raises(ValueError, match=r"more than one value a channel in training, got input \(1, 2, 1, 1\)"):
        F.batch_norm(leaf(np.ones((1, 2, 1, 1))), *statistics, leaf([1.0, 1.0]), leaf([0.0, 0.0]), training=True)
    weight = leaf([1.0, 1.0])
    y = F.batch_norm(leaf(np.ones((0, 2, 3, 3))), *statistics, weight, leaf([0.0, 0.0]), training=True)
    assert y.shape == (0, 2, 3, 3)
    assert [array.tolist() for array in statistics] == [[1, 2], [3, 4]]
    np.testing.assert_array_equal(gradient(y.sum(), weight), [0, 0])


def test_local_response_norm_by_hand():
    x = leaf(np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1))
    y = F.local_response_norm(x, size=3, alpha=3.0, beta=1.0, k=1.0)  # x / (1 + x0^2 + x1^2 + x2^2 of the neighbours)
    np.testing.assert_allclose(y.data.ravel(), [1 / (1 + 1 + 4), 2 / (1 + 1 + 4 + 9), 3 / (1 + 4 + 9)])


def test_dropout_scales_what_it_keeps_and_its_gradient_alike():
    x = leaf(np.ones(10_000))
    y = F.dropout(x, 0.25, True, np.random.default_rng(0))
    assert set(np.round(y.data, 12)) == {0.0, round(4 / 3, 12)}
    assert 0.73 < (y.data > 0).mean() < 0.77
    np.testing.assert_array_equal(gradient(y.sum(), x), y.data)
    np.testing.assert_array_equal(y.data, F.dropout(x, 0.25, True, np.random.default_rng(0)).data)
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert F.dropout(leaf([1.0], np.float32), np.float64(0.5), True, np.random.default_rng(0)).dtype == np.float32
    with pytest.raises(ValueError, match="expected a probability 0 <= p < 1, got 1"):
        F.dropout(x, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_nothing_overflows_at_extreme_scores(dtype):
    x = leaf([-1e4, -800.0, 0.0, 800.0, 1e4], dtype)
    np.testing.assert_array_equal(F.sigmoid(x).data, [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(F.softplus(x).data, [0, 0, np.log(2), 800, 1e4], rtol=1e-6)
    np.testing.assert_array_equal(F.softmax(x, 0).data, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(F.log_softmax(x, 0).data, [-2e4, -10_800, -1e4, -9200, 0])
    losses = F.binary_cross_entropy_with_logits(x, np.array([1, 1, 1, 0, 1], dtype), reduction="none")
    np.testing.assert_allclose(losses.data, [1e4, 800, np.log(2), 800, 0], rtol=1e-6, atol=1e-6)
    for y in (F.sigmoid(x), F.softplus(x), F.softmax(x, 0), F.log_softmax(x, 0), losses):
        assert np.isfinite(gradient(y.sum(), x)).all()


def test_slopes_at_the_kinks():
    x = leaf([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(gradient(F.relu(x).sum(), x), [0, 0, 1])
    np.testing.assert_array_equal(gradient(F.leaky_relu(x, 0.1).sum(), x), [0.1, 0.1, 1])
    np.testing.assert_array_equal(gradient(abs(x).sum(), x), [-1, 0, 1])
    np.testing.assert_array_equal(gradient(F.maximum(x, 0.0).sum(), x), [0, 0.5, 1])
    np.testing.assert_array_equal(gradient(F.clip(x, -1, 0.5).sum(), x), [1, 1, 0])


def test_a_large_relu_is_the_small_one_over_and_over():
    """Above F.activations.SMALL elements a kernel does the work."""
    few, cotangent = [-1.0, 0.0, 2.0, np.nan], [5.0, 6.0, 7.0, 8.0]
    for times in (1, 100_000):
        x = leaf(np.tile(few, times))
        y = F.relu(x)
        y.backward(np.tile(cotangent, times))
        np.testing.assert_array_equal(y.data, np.tile([0, 0, 2, np.nan], times))
        np.testing.assert_array_equal(x.grad.data, np.tile([0, 0, 7, 0], times))


def test_cross_entropy_by_hand():
    logits = leaf(np.log([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]]))
    losses = F.cross_entropy(logits, np.array([2, 0]), reduction="none")
    np.testing.assert_allclose(losses.data, [-np.log(0.5), -np.log(0.1)])
    weighted = F.cross_entropy(logits, np.array([2, 0]), weight=tensor([1.0, 1.0, 3.0]))
    np.testing.assert_allclose(weighted.item(), (-3 * np.log(0.5) - np.log(0.1)) / 4)
    ignoring = F.cross_entropy(logits, np.array([2, 255]), ignore_index=255)
    np.testing.assert_allclose(ignoring.item(), -np.log(0.5))
    np.testing.assert_allclose(gradient(ignoring, logits), [[0.2, 0.3, -0.5], [0, 0, 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.array([0, 3]), "expected classes 0 to 2, got 0 to 3"),
        (np.array([-1, 0]), "expected classes 0 to 2, got -1 to 0"),
        (np.array([0.0, 1.0]), r"expected integer targets \(2,\), got float64"),
        (np.array([0, 1, 2]), r"expected integer targets \(2,\), got int64 \(3,\)"),
    ],
)
def test_classes_that_do_not_exist_are_refused(target, message):
    for loss in (F.cross_entropy, F.multi_margin_loss):
        with pytest.raises(ValueError, match=f"{loss.__name__}: {message}"):
            loss(leaf(np.zeros((2, 3))), target)


def test_regression_losses_by_hand():
    x, target = leaf([0.0, 0.5, -3.0]), np.zeros(3)
    np.testing.assert_allclose(F.smooth_l1_loss(leaf([0.1]), np.zeros(1), beta=0.25).item(), 0.5 * 0.01 / 0.25)
    np.testing.assert_array_equal(F.l1_loss(x, target, "none").data, [0, 0.5, 3])
    np.testing.assert_array_equal(F.mse_loss(x, target, "none").data, [0, 0.25, 9])
    np.testing.assert_array_equal(F.smooth_l1_loss(x, target, "none").data, [0, 0.125, 2.5])
    np.testing.assert_array_equal(F.smooth_l1_loss(x, target, "none", beta=0.25).data, [0, 0.375, 2.875])
    np.testing.assert_array_equal(gradient(F.smooth_l1_loss(x, target, "sum"), x), [0, 0.5, -1])
    assert F.mse_loss(x, target, "sum").item() == 9.25
    np.testing.assert_allclose(F.mse_loss(x, target).item(), 9.25 / 3)


def test_hinge_losses_by_hand():
    scores, target = leaf([0.5, 2.0, -1.0]), np.array([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(F.hinge_loss(scores, target, reduction="none").data, [0.5, 0, 2])
    np.testing.assert_array_equal(gradient(F.hinge_loss(scores, target, reduction="sum"), scores), [-1, 0, -1])
    logits = leaf([[1.0, 0.5, -2.0]])
    loss = F.multi_margin_loss(logits, np.array([0]))
    np.testing.assert_allclose(loss.item(), (1 - 1 + 0.5) / 3)  # only class 1 is within the margin
    np.testing.assert_allclose(gradient(loss, logits), [[-1 / 3, 1 / 3, 0]])


TWO_ARRAYS = [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.hinge_loss, F.binary_cross_entropy_with_logits]


@pytest.mark.parametrize("loss", TWO_ARRAYS)
def test_unlike_shapes_unknown_reductions_and_empty_batches(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: expected input and target of one shape, got \(2, 1\)"):
        loss(leaf([[1.0], [2.0]]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="reduction: expected 'mean', 'sum' or 'none', got 'average'"):
        loss(leaf([1.0]), np.array([1.0]), reduction="average")
    empty = leaf(np.zeros((0, 4)))
    y = loss(empty, np.zeros((0, 4)))
    assert y.item() == 0
    assert gradient(y, empty).shape == (0, 4)


def test_given_arrays_the_functions_are_array_functions():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    weight, running = np.ones(3, np.float32), (np.zeros(3, np.float32), np.ones(3, np.float32))
    results = [
        F.relu(x), F.leaky_relu(x), F.sigmoid(x), F.tanh(x), F.softplus(x), F.softmax(x, 1), F.log_softmax(x, 1),
        F.conv2d(x, np.ones((2, 3, 1, 1), np.float32)), F.conv_transpose2d(x, np.ones((3, 2, 1, 1), np.float32)),
        F.linear(x, np.ones((2, 4), np.float32)), F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.global_avg_pool2d(x),
        F.global_max_pool2d(x), F.batch_norm(x, *running, weight, weight), F.local_response_norm(x, 3),
        F.interpolate(x, 3), F.interpolate(x, scale_factor=1.5, mode="bilinear"),
        F.batch_norm(x, *running, weight, weight, training=True), F.dropout(x, 0.5, True, np.random.default_rng(0)),
        F.mse_loss(x, x, "none"), F.smooth_l1_loss(x, x, "none"), F.l1_loss(x, x, "none"),
        F.hinge_loss(x, x, reduction="none"), F.binary_cross_entropy_with_logits(x, x, None, "none"),
        F.cross_entropy(x, np.zeros((2, 4, 4), int), reduction="none"),
        F.stack([x, x]), F.concatenate([x, x]), F.pad(x, [(0, 0)] * 4), F.where(x > 0, x, 0.0), F.clip(x, -1, 1),
        F.maximum(x, 0.0), F.minimum(x, 0.0), F.exp(x), F.sin(x), F.cos(x), F.arctan(x), F.sqrt(abs(x)), F.log(abs(x)),
    ]  # fmt: skip
    for result in results:
        assert type(result) is np.ndarray
        assert result.dtype == np.float32


@pytest.mark.parametrize("bias", [np.ones(1, np.float32), np.ones((1, 3), np.float32)])
def test_a_fully_connected_layer_refuses_a_bias_that_would_be_broadcast(bias):
    with pytest.raises(ValueError, match=r"linear: expected bias \(3,\) for weight \(3, 2\), got"):
        F.linear(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), bias)


@pytest.mark.parametrize("odd", range(3))
def test_a_fully_connected_layer_refuses_mixed_dtypes(odd):
    arrays = [np.ones(shape, np.float64 if i == odd else np.float32) for i, shape in enumerate([(1, 2), (3, 2), (3,)])]
    with pytest.raises(TypeError, match="linear: expected float32 or float64, the same for all, got"):
        F.linear(*arrays)


def test_geometry_may_be_lists_and_numpy_integers():
    x, weight = np.ones((1, 2, 3, 3), np.float32), np.ones((2, 4, 3, 3), np.float32)
    y = F.conv_transpose2d(x, weight, stride=[2, np.int64(3)], padding=np.int64(1), output_padding=[1, 2])
    assert y.shape == (1, 4, 6, 9)
    assert minidet.nn.Conv2d(2, 3, np.int64(3)).weight.shape == (3, 2, 3, 3)
    assert minidet.nn.ConvTranspose2d(2, 3, [1, 3]).weight.shape == (2, 3, 1, 3)


@pytest.mark.parametrize("stride", [2.0, None, "ab", (1, 2, 3), 0])
def test_geometry_of_another_kind_is_refused(stride):
    x, weight = np.ones((1, 2, 3, 3), np.float32), np.ones((2, 2, 3, 3), np.float32)
    for convolution in (F.conv2d, F.conv_transpose2d):
        message = f"{convolution.__name__}: expected stride to be an integer >= 1 or a pair"
        with pytest.raises(ValueError, match=message):
            convolution(x, weight, stride=stride)


def test_a_transposed_convolution_refuses_a_bias_that_would_be_broadcast_or_change_the_dtype():
    x, weight = np.ones((1, 2, 3, 3), np.float32), np.ones((2, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"conv_transpose2d: expected bias \(4,\), got \(1,\)"):
        F.conv_transpose2d(x, weight, np.ones(1, np.float32), groups=2)
    with pytest.raises(TypeError, match="conv_transpose2d: expected float32 or float64, the same for all"):
        F.conv_transpose2d(x, weight, np.ones(2))


def test_an_ignored_target_counts_nothing_also_where_a_class_is_ruled_out():
    logits = leaf([[-np.inf, 1.0, 1.0], [0.0, 0.0, -np.inf]])
    loss = F.cross_entropy(logits, np.array([-100, 1]))
    np.testing.assert_allclose(loss.item(), np.log(2))
    np.testing.assert_allclose(gradient(loss, logits), [[0, 0, 0], [0.5, -0.5, 0]])


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_stays_in_the_inputs_dtype_and_refuses_a_mixture(training):
    x, ones = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(np.float32), np.ones(3, np.float32)
    assert F.batch_norm(x, np.zeros(3), np.ones(3), ones, ones, training).dtype == np.float32
    with pytest.raises(TypeError, match="batch_norm: expected float32 or float64, the same for all"):
        F.batch_norm(x, np.zeros(3), np.ones(3), np.ones(3), ones, training)


def test_batch_norm_in_evaluation_needs_the_running_statistics():
    x = np.ones((2, 3, 2, 2))
    for arguments in [(None, None), (np.zeros(3), None), (None, np.ones(3)), (np.zeros(3), None, None, None, True)]:
        with pytest.raises(ValueError, match="batch_norm: expected running_mean and running_var, or neither"):
            F.batch_norm(x, *arguments)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1), ()])
def test_weights_of_another_number_of_classes_are_refused(shape):
    with pytest.raises(ValueError, match=r"cross_entropy: expected weight \(3,\), one a class, got"):
        F.cross_entropy(np.zeros((2, 3)), np.array([0, 0]), weight=np.ones(shape))


def test_a_transposed_convolution_without_a_result_is_refused_by_its_own_name():
    with pytest.raises(ValueError, match="conv_transpose2d: the result would have -1 x 1 pixels; use less padding"):
        F.conv_transpose2d(np.ones((1, 2, 1, 1)), np.ones((2, 2, 1, 1)), padding=(1, 0))


@pytest.mark.parametrize("pool", [F.global_avg_pool2d, F.global_max_pool2d])
def test_global_pooling_of_one_image_without_a_batch_is_refused(pool):
    with pytest.raises(ValueError, match=rf"{pool.__name__}: expected input \(N, C, H, W\), got \(3, 4, 4\)"):
        pool(np.ones((3, 4, 4)))


@pytest.mark.parametrize("pool", [F.global_avg_pool2d, F.global_max_pool2d])
def test_global_pooling_of_maps_without_pixels_and_of_lists_is_refused(pool):
    with pytest.raises(ValueError, match=rf"{pool.__name__}: expected input .* at least one pixel, got \(2, 3, 0, 4\)"):
        pool(np.ones((2, 3, 0, 4)))
    with pytest.raises(TypeError, match=f"{pool.__name__}: expected input to be an array, got list"):
        pool([[[[1.0]]]])
    assert pool(np.ones((0, 3, 4, 4))).shape == (0, 3)
