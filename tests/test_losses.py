"""What jaxgd.losses promises."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import losses, neurons

BIG = 1e9


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def scores_and_labels(rng, *batch, num_classes=5):
    scores = 3 * rng.normal(size=(*batch, num_classes)).astype(np.float32)
    return scores, rng.integers(num_classes, size=batch)


# Values, against optax, scikit-learn and closed forms.


@pytest.mark.parametrize(
    ("loss", "witness"),
    [
        (losses.squared_error, optax.losses.squared_error),
        (losses.half_squared_error, optax.losses.l2_loss),
        (losses.absolute_error, lambda z, y: jnp.abs(z - y)),
    ],
)
def test_regression_losses_and_their_slopes_equal_those_of_optax(rng, loss, witness):
    predictions, targets = rng.normal(size=(2, 3, 4)).astype(np.float32)

    @jax.jit
    def values_and_slopes(predictions, targets):
        return [
            (f(predictions, targets), jax.vmap(jax.grad(f))(predictions.ravel(), targets.ravel()))
            for f in (loss, witness)
        ]

    chex.assert_trees_all_close(*values_and_slopes(predictions, targets))


def test_absolute_and_squared_error_weigh_an_outlier_as_in_the_textbook_table():
    labels = np.ones(3, np.float32)
    for predictions, absolute, squared in [([1, 2, 3], 3, 5), ([1, 3, 3], 4, 8)]:
        predictions = np.array(predictions, np.float32)
        assert np.sum(jax.jit(losses.absolute_error)(predictions, labels)) == absolute
        assert np.sum(jax.jit(losses.squared_error)(predictions, labels)) == squared


def test_half_squared_error_has_the_residual_as_its_slope(rng):
    z, y = rng.normal(size=(2, 7)).astype(np.float32)

    slopes = jax.jit(jax.vmap(jax.grad(losses.half_squared_error)))(z, y)
    np.testing.assert_array_equal(slopes, z - y)


def test_binary_cross_entropy_and_its_slope_equal_those_of_optax(rng):
    logits = 3 * rng.normal(size=(3, 4)).astype(np.float32)
    labels = rng.random((3, 4)) < 0.5
    labels_of_a_dtype = [labels.astype(dtype) for dtype in (int, float, bool)]

    theirs = optax.losses.sigmoid_binary_cross_entropy

    @jax.jit
    def values_and_slopes(logits, labels_of_a_dtype):
        ours = [(losses.sigmoid_binary_cross_entropy, labels) for labels in labels_of_a_dtype]
        losses_of = (*ours, (theirs, labels_of_a_dtype[0].astype("float32")))
        totals = [lambda z, f=f, y=y: (f(z, y).sum(), f(z, y)) for f, y in losses_of]
        return [jax.grad(total, has_aux=True)(logits) for total in totals]

    *ours, (their_slopes, their_values) = values_and_slopes(logits, labels_of_a_dtype)
    for slopes, values in ours:
        chex.assert_trees_all_close(values, their_values, rtol=1e-5)
        chex.assert_trees_all_close(slopes, their_slopes, atol=1e-6)


def test_binary_cross_entropy_takes_probabilities_as_labels(rng):
    logits, labels = (
        rng.normal(size=5).astype(np.float32),
        np.array([0.0, 0.1, 0.5, 0.7, 1.0], np.float32),
    )
    p = 1 / (1 + np.exp(-logits.astype(float)))

    expected = -labels * np.log(p) - (1 - labels) * np.log(1 - p)

    found = jax.jit(losses.sigmoid_binary_cross_entropy)(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_both_cross_entropies_equal_the_log_loss_of_scikit_learn(rng):
    from sklearn import metrics

    logits, labels = rng.normal(size=20), np.arange(20) % 2
    p = 1 / (1 + np.exp(-logits))
    ours = np.mean(jax.jit(losses.sigmoid_binary_cross_entropy)(logits, labels))
    np.testing.assert_allclose(ours, metrics.log_loss(labels, p), rtol=1e-12)

    scores, classes = rng.normal(size=(20, 3)), np.arange(20) % 3
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    ours = np.mean(jax.jit(losses.softmax_cross_entropy_with_integer_labels)(scores, classes))
    np.testing.assert_allclose(ours, metrics.log_loss(classes, p), rtol=1e-12)


def test_softmax_cross_entropy_and_its_slope_equal_those_of_optax(rng):
    logits, labels = scores_and_labels(rng, 2, 3)

    @jax.jit
    def values_and_slopes(logits):
        ours = losses.softmax_cross_entropy_with_integer_labels
        theirs = optax.losses.softmax_cross_entropy_with_integer_labels
        totals = [lambda z, f=f: (f(z, labels).sum(), f(z, labels)) for f in (ours, theirs)]
        return [jax.grad(total, has_aux=True)(logits) for total in totals]

    (slopes, values), (their_slopes, their_values) = values_and_slopes(logits)
    chex.assert_trees_all_close(values, their_values, rtol=1e-5)
    chex.assert_trees_all_close(slopes, their_slopes, atol=1e-6)


def test_the_cross_entropy_of_one_example_is_not_divided_by_the_number_of_classes():
    scores = np.array([2, 5, 1], np.float32)
    loss = jax.jit(losses.softmax_cross_entropy_with_integer_labels)(scores, 1)

    np.testing.assert_allclose(loss, np.log(np.exp([2, 5, 1]).sum()) - 5, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.0658839, atol=5e-8)


def test_the_hinge_of_binary_margins_equals_optax_and_scikit_learn(rng):
    from sklearn import metrics

    scores, labels = 2 * rng.normal(size=20).astype(np.float32), 2 * (np.arange(20) % 2) - 1

    @jax.jit
    def both(scores, labels):
        ours = losses.hinge(losses.binary_margin(scores, labels))
        return ours, optax.losses.hinge_loss(scores, labels)

    ours, theirs = both(scores, labels)
    chex.assert_trees_all_close(ours, theirs)
    np.testing.assert_allclose(np.mean(ours), metrics.hinge_loss(labels, scores), rtol=1e-6)


def test_the_hinge_of_multiclass_margins_equals_optax_and_scikit_learn(rng):
    from sklearn import metrics

    scores, labels = scores_and_labels(rng, 12)
    labels = np.arange(12) % 5

    @jax.jit
    def both(scores, labels):
        ours = losses.hinge(losses.multiclass_margin(scores, labels))
        return ours, optax.losses.multiclass_hinge_loss(scores, labels)

    ours, theirs = both(scores, labels)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(
        np.mean(ours), metrics.hinge_loss(labels, scores, labels=np.arange(5)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("margin", "hinge", "ramp"),
    [
        (5, 0, 0),
        (2, 0, 0),
        (1, 0, 0),
        (0.5, 0.5, 0.5),
        (0, 1, 1),
        (-0.5, 1.5, 1.5),
        (-1, 2, 1.5),
        (-10, 11, 1.5),
    ],
)
def test_margin_losses_take_the_values_of_their_formulas(margin, hinge, ramp):
    margin = np.float32(margin)

    assert float(jax.jit(losses.hinge)(margin)) == hinge
    assert float(jax.jit(losses.squared_hinge)(margin)) == hinge**2
    assert float(jax.jit(losses.ramp)(margin, -0.5)) == ramp


@pytest.mark.parametrize("cut", [-2.0, -0.5, 0.0, 0.75])
def test_a_ramp_is_the_difference_of_two_hinges_and_the_smaller_of_two_losses(cut):
    margins = np.linspace(-4, 3, 57, dtype=np.float32)
    ramp, hinge = jax.jit(losses.ramp)(margins, cut), jax.jit(losses.hinge)(margins)

    difference = np.maximum(0, 1 - margins) - np.maximum(0, cut - margins)
    np.testing.assert_allclose(ramp, difference, atol=1e-6)
    np.testing.assert_allclose(ramp, np.minimum(hinge, 1 - cut), atol=1e-6)


def test_the_cut_of_a_ramp_may_be_traced(rng):
    margins = rng.normal(size=4).astype(np.float32)
    cuts = np.array([-1, 0, 0.5], np.float32)

    swept = jax.jit(jax.vmap(losses.ramp, in_axes=(None, 0)))(margins, cuts)

    ramp = jax.jit(losses.ramp)
    for row, cut in zip(np.asarray(swept), cuts, strict=True):
        np.testing.assert_array_equal(row, ramp(margins, float(cut)))


def test_margins_are_computed_from_their_definitions(rng):
    scores, labels = scores_and_labels(rng, 2, 3)

    true_class = np.asarray(jax.jit(losses.true_class_score)(scores, labels))
    margin = np.asarray(jax.jit(losses.multiclass_margin)(scores, labels))

    for index in np.ndindex(2, 3):
        mine = scores[index][labels[index]]
        assert true_class[index] == mine
        assert margin[index] == mine - np.delete(scores[index], labels[index]).max()


def test_the_multiclass_margin_ignores_a_constant_and_the_true_class_score_does_not():
    scores, margin = np.array([2, 5, 1], np.float32), jax.jit(losses.multiclass_margin)
    true_class, hinge = jax.jit(losses.true_class_score), jax.jit(losses.hinge)

    assert float(margin(scores + 8, 1)) == float(margin(scores, 1))
    assert float(true_class(scores + 8, 1)) == 13
    equal = np.full(3, 5, np.float32)
    assert all(float(hinge(true_class(equal, y))) == 0 for y in range(3))
    assert all(float(hinge(margin(equal, y))) == 1 for y in range(3))


def test_with_two_classes_the_multiclass_margin_is_a_binary_margin(rng):
    scores = rng.normal(size=(7, 2)).astype(np.float32)
    labels = np.arange(7) % 2

    binary = jax.jit(losses.binary_margin)(scores[:, 1] - scores[:, 0], 2 * labels - 1)

    margin = jax.jit(losses.multiclass_margin)(scores, labels)
    np.testing.assert_allclose(margin, binary, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_losses_keep_the_dtype_of_their_predictions(dtype):
    def all_losses(z, y, scores, classes):
        return [
            losses.squared_error(z, y),
            losses.half_squared_error(z, y),
            losses.absolute_error(z, y),
            losses.sigmoid_binary_cross_entropy(z, y),
            losses.softmax_cross_entropy_with_integer_labels(scores, classes),
            losses.hinge(z),
            losses.squared_hinge(z),
            losses.ramp(z, -0.5),
            losses.true_class_score(scores, classes),
            losses.binary_margin(z, 2 * y - 1),
            losses.multiclass_margin(scores, classes),
        ]

    z, scores = np.array([0.5, -2.0]).astype(dtype), np.ones((2, 3), dtype)
    labels = np.array([1, 0], np.int32)
    for loss in jax.eval_shape(all_losses, z, labels, scores, 2 * labels):
        assert loss.dtype == dtype


# Far from zero.


def of_all(cases):
    """The value and the slope of each of some functions of one number, in one program."""
    fns = [fn for fn, *_ in cases]

    @jax.jit
    def values_and_slopes(points):
        return [jax.value_and_grad(fn)(at) for fn, at in zip(fns, points, strict=True)]

    return functools.cache(lambda: values_and_slopes([float(at) for _, at, *_ in cases]))


FAR = [
    (lambda z: losses.squared_error(z, 0.0), BIG, 1e18, 2e9),
    (lambda z: losses.half_squared_error(z, 0.0), -BIG, 5e17, -1e9),
    (lambda z: losses.absolute_error(z, 0.0), -BIG, 1e9, -1),
    (lambda z: losses.sigmoid_binary_cross_entropy(z, 1), BIG, 0, 0),
    (lambda z: losses.sigmoid_binary_cross_entropy(z, 1), -BIG, 1e9, -1),
    (lambda z: losses.sigmoid_binary_cross_entropy(z, 0), BIG, 1e9, 1),
    (lambda z: losses.sigmoid_binary_cross_entropy(z, 0), -BIG, 0, 0),
    (lambda z: losses.sigmoid_binary_cross_entropy(z, 0.5), BIG, 5e8, 0.5),
    (losses.hinge, BIG, 0, 0),
    (losses.hinge, -BIG, 1e9, -1),
    (losses.squared_hinge, BIG, 0, 0),
    (losses.squared_hinge, -BIG, 1e18, -2e9),
    (lambda m: losses.ramp(m, -0.5), BIG, 0, 0),
    (lambda m: losses.ramp(m, -0.5), -BIG, 1.5, 0),
    (lambda s: losses.binary_margin(s, -1), BIG, -1e9, -1),
]
far = of_all(FAR)


@pytest.mark.parametrize("case", range(len(FAR)))
def test_losses_stay_exact_at_a_billion(case):
    _, _, value, slope = FAR[case]
    np.testing.assert_allclose(far()[case], (value, slope), rtol=1e-6)


@pytest.mark.parametrize("big", [BIG, -BIG])
def test_softmax_losses_stay_exact_at_a_billion(big):
    scores = np.array([big, 0, 1], np.float32)
    cross_entropy = jax.jit(jax.value_and_grad(losses.softmax_cross_entropy_with_integer_labels))
    for label in range(3):
        loss, slopes = cross_entropy(scores, label)
        s = np.array([big, 0.0, 1.0])
        p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        expected = s.max() + np.log(np.exp(s - s.max()).sum()) - s[label]
        np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(slopes, p - np.eye(3)[label], atol=1e-6)

        margin = jax.jit(losses.multiclass_margin)(scores, label)
        np.testing.assert_allclose(margin, s[label] - np.delete(s, label).max(), rtol=1e-6)


@pytest.mark.parametrize(("logit", "label"), [(40.0, 1), (-40.0, 0)])
def test_binary_cross_entropy_keeps_the_small_losses(logit, label):
    cross_entropy = jax.jit(jax.value_and_grad(losses.sigmoid_binary_cross_entropy))
    loss, slope = cross_entropy(logit, label)

    np.testing.assert_allclose(loss, np.exp(-40), rtol=1e-5)
    np.testing.assert_allclose(abs(slope), np.exp(-40), rtol=1e-5)


def test_softmax_cross_entropy_is_right_where_the_log_of_a_softmax_is_infinite():
    scores = np.array([0, 200], np.float32)
    loss = jax.jit(losses.softmax_cross_entropy_with_integer_labels)(scores, 0)

    assert float(loss) == 200


# Kinks.


KINKS = [
    (losses.hinge, 1.0),
    (losses.squared_hinge, 1.0),
    (lambda m: losses.ramp(m, -0.5), 1.0),
    (lambda m: losses.ramp(m, -0.5), -0.5),
    (lambda m: losses.ramp(m, 0.0), 0.0),
    (lambda z: losses.absolute_error(z, 3.0), 3.0),
    (lambda y: losses.absolute_error(3.0, y), 3.0),
]
at_kinks = of_all(KINKS)


@pytest.mark.parametrize("case", range(len(KINKS)))
def test_at_a_kink_the_slope_is_that_of_the_flat_side(case):
    _, slope = at_kinks()[case]
    assert float(slope) == 0


BESIDE = [
    (losses.hinge, 1 - 1e-6, -1),
    (losses.hinge, 1 + 1e-6, 0),
    (lambda m: losses.ramp(m, -0.5), 1 - 1e-6, -1),
    (lambda m: losses.ramp(m, -0.5), -0.5 + 1e-6, -1),
    (lambda m: losses.ramp(m, -0.5), -0.5 - 1e-6, 0),
    (lambda z: losses.absolute_error(z, 3.0), 3 + 1e-6, 1),
    (lambda z: losses.absolute_error(z, 3.0), 3 - 1e-6, -1),
]
beside_kinks = of_all(BESIDE)


@pytest.mark.parametrize("case", range(len(BESIDE)))
def test_beside_a_kink_the_slope_is_that_of_its_side(case):
    _, slope = beside_kinks()[case]
    assert float(slope) == BESIDE[case][-1]


def test_at_a_kink_optax_and_jax_take_other_slopes_as_the_docstrings_say():
    assert float(jax.jit(jax.grad(optax.losses.hinge_loss))(1.0, 1.0)) == -0.5
    assert float(jax.jit(jax.grad(jnp.abs))(0.0)) == 1.0


def test_the_slope_of_a_shared_maximum_is_shared():
    scores = np.array([4, 1, 4, 9], np.float32)

    slopes = jax.jit(jax.grad(losses.multiclass_margin))(scores, 3)

    np.testing.assert_array_equal(slopes, np.array([-0.5, 0.0, -0.5, 1.0]))


# Labels that name no class.


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize(
    "loss",
    [
        losses.softmax_cross_entropy_with_integer_labels,
        losses.true_class_score,
        losses.multiclass_margin,
    ],
)
def test_a_label_that_is_no_class_gives_nan_there_and_nowhere_else(loss, wrap):
    scores = np.array([[1, 2, 3]] * 5 + [[4, 1, 0]], np.float32)

    values = wrap(loss)(scores, np.array([-1, 3, 100, -(2**31), 2**31 - 1, 2], np.int32))

    *of_none, last = np.asarray(values)
    assert np.isnan(of_none).all()
    np.testing.assert_allclose(last, jax.jit(loss)(scores[-1], 2), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_labels_may_be_of_any_integer_dtype(dtype):
    scores = np.array([[1, 2, 3], [4, 1, 0]], np.float32)

    values = jax.jit(losses.true_class_score)(scores, np.array([2, 0], dtype))

    np.testing.assert_array_equal(values, np.array([3, 4], np.float32))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (losses.binary_margin, [0.0, 0.5, 2.0, -1.5, np.nan]),
        (losses.sigmoid_binary_cross_entropy, [-1.0, -0.01, 1.01, 2.0, np.nan]),
    ],
)
def test_a_binary_label_outside_its_range_gives_nan_there_and_nowhere_else(loss, labels, wrap):
    labels = np.array([*labels, 1], np.float32)

    values = np.asarray(wrap(loss)(np.full(6, 0.5, np.float32), labels))

    assert np.isnan(values[:-1]).all()
    assert np.isfinite(values[-1])


def test_nan_predictions_stay_nan():
    @jax.jit
    def all_losses(nan):
        return [
            losses.hinge(nan),
            losses.squared_hinge(nan),
            losses.ramp(nan, 0.0),
            losses.absolute_error(nan, 0.0),
            losses.sigmoid_binary_cross_entropy(nan, 1.0),
        ]

    assert np.isnan(all_losses(np.nan)).all()


# The mean over a data set.


def test_an_empirical_risk_is_the_mean_loss_over_the_data(rng):
    neuron = neurons.Neuron(weights=jnp.array([2.0, -1.0]), bias=jnp.array(0.5))
    x, y = rng.normal(size=(7, 2)).astype(np.float32), rng.normal(size=7).astype(np.float32)

    risk = losses.empirical_risk(neurons.weighted_sum, losses.squared_error)

    expected = np.mean([(2 * a - b + 0.5 - t) ** 2 for (a, b), t in zip(x, y, strict=True)])
    np.testing.assert_allclose(jax.jit(risk)(neuron, x, y), expected, rtol=1e-6)


def test_an_empirical_risk_takes_integer_labels_and_averages_every_axis(rng):
    scores, labels = scores_and_labels(rng, 2, 3)

    risk = losses.empirical_risk(
        lambda p, x: p * x, losses.softmax_cross_entropy_with_integer_labels
    )

    expected = jax.jit(optax.losses.softmax_cross_entropy_with_integer_labels)(2 * scores, labels)
    value = jax.jit(risk)(2.0, scores, labels)
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-6)
    chex.assert_shape(value, ())


def test_a_mean_over_batches_is_the_mean_with_its_derivatives(rng):
    scores, labels = rng.normal(size=(7, 4)).astype(np.float32), rng.integers(4, size=7)
    factors, step = rng.normal(size=(2, 1, 4)).astype(np.float32)
    loss = losses.softmax_cross_entropy_with_integer_labels

    @jax.jit
    def values_gradients_and_products(factors, step):
        def of(batch_size):
            predict = lambda p, x: jnp.tanh(p * x["x"])  # noqa: E731
            risk = losses.empirical_risk(predict, loss, batch_size=batch_size)
            gradient = jax.value_and_grad(risk)
            return jax.jvp(lambda p: gradient(p, {"x": scores}, labels), (factors,), (step,))

        return [of(batch_size) for batch_size in (None, 1, 3, 7, 50)]

    plain, *batched = values_gradients_and_products(factors, step)
    for found in batched:
        chex.assert_trees_all_close(found, plain, rtol=2e-5, atol=1e-6)


def test_a_mean_over_batches_averages_every_axis_in_the_dtype_of_the_losses():
    x = jnp.asarray(np.arange(10).reshape(5, 2), jnp.bfloat16)
    one, zeros = jnp.bfloat16(1.0), np.zeros((5, 2), np.float32)

    risk = losses.empirical_risk(lambda p, x: p * x, losses.squared_error, batch_size=2)

    mean = jax.jit(risk)(one, x, zeros)
    assert float(mean) == 28.5  # 0 + 1 + 4 + ... + 81 over 10
    whole = losses.empirical_risk(lambda p, x: p * x, losses.squared_error)
    rounded = jax.jit(whole)(one, x, jnp.asarray(zeros, jnp.bfloat16))
    assert float(rounded) == float(np.asarray(mean).astype(jnp.bfloat16))


def test_a_mean_of_hits_or_of_counts_over_batches_is_no_boolean_and_no_integer():
    labels = np.array([0, 1, 1, 3, 2, 1, 0])
    for loss, wanted in ((jnp.equal, 3 / 7), (lambda p, t: p + t, 15 / 7)):
        risk = losses.empirical_risk(lambda p, x: (p * x).astype(int), loss, batch_size=3)
        np.testing.assert_allclose(jax.jit(risk)(1.0, np.ones(7), labels), wanted, rtol=1e-6)


def test_a_loss_may_compare_examples_with_each_other_and_take_what_it_needs_in_pytrees(rng):
    x, pairs = rng.normal(size=(2, 5, 3)).astype(np.float32)
    targets = {"pair": pairs, "weight": np.arange(5.0, dtype=np.float32)}

    def contrast(predictions, targets):
        similar = predictions["view"] @ targets["pair"].T
        return (jax.nn.logsumexp(similar, -1) - jnp.diagonal(similar)) * targets["weight"]

    risk = losses.empirical_risk(lambda p, x: {"view": p * x}, contrast)

    similar = 2 * x @ pairs.T
    each = np.log(np.exp(similar).sum(-1)) - np.diagonal(similar)
    wanted = (each * np.arange(5)).mean()
    np.testing.assert_allclose(jax.jit(risk)(2.0, x, targets), wanted, rtol=1e-5)


def test_a_mean_over_batches_and_its_derivatives_need_the_memory_of_one_batch():
    def layer(*shape: int) -> neurons.Neuron:
        arrays: Any = np.ones(shape, np.float32), np.ones(shape[-1], np.float32)
        return neurons.Neuron(*arrays)

    network = layer(3, 64), layer(64, 2)
    x, y = np.ones((1003, 3), np.float32), np.zeros(1003, np.int32)

    def temporaries(batch_size):
        risk = losses.empirical_risk(
            neurons.apply_network,
            losses.softmax_cross_entropy_with_integer_labels,
            batch_size=batch_size,
        )
        gradient = jax.value_and_grad(risk)
        all_of_them = jax.jit(lambda p: jax.jvp(lambda p: gradient(p, x, y), (p,), (p,)))
        figures = all_of_them.lower(network).compile().memory_analysis()
        assert figures is not None
        return figures.temp_size_in_bytes

    assert temporaries(50) < temporaries(None) / 8


@pytest.mark.parametrize(
    ("bits", "num_classes"), [("uint8", 256), ("int8", 128), ("int8", 300), ("int16", 2**15)]
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_labels_of_a_narrow_dtype_name_any_class_they_can_hold(bits, num_classes, wrap):
    scores, labels = np.zeros((2, num_classes), np.float32), np.array([0, 101], bits)
    scores[1, 101] = 5

    @wrap
    def all_losses(scores, labels):
        return (
            losses.softmax_cross_entropy_with_integer_labels(scores, labels),
            losses.true_class_score(scores, labels),
            losses.multiclass_margin(scores, labels),
        )

    cross_entropy, score, margin = all_losses(scores, labels)

    wanted = [np.log(num_classes), np.log(num_classes - 1 + np.exp(5.0)) - 5]
    np.testing.assert_allclose(cross_entropy, wanted, rtol=1e-6)
    np.testing.assert_array_equal(score, [0, 5])
    np.testing.assert_array_equal(margin, [0, 5])


def known(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, t: -jax.nn.log_softmax(p)[jnp.arange(5), t],
        lambda p, t: -jnp.sum(jax.nn.log_softmax(p) * jax.nn.one_hot(t, 5), axis=1),
        lambda p, t: (chex.assert_equal_shape_prefix([p, t], 1), known(p, t))[1],
    ],
)
def test_a_loss_may_know_how_many_examples_or_classes_there_are(loss):
    risk = losses.empirical_risk(lambda p, x: p * x, loss)
    logits = np.arange(25, dtype=np.float32).reshape(5, 5) % 7
    labels = np.array([0, 4, 2, 2, 1], np.int32)

    right = jax.jit(losses.softmax_cross_entropy_with_integer_labels)(logits, labels)
    np.testing.assert_allclose(jax.jit(risk)(1.0, logits, labels), np.mean(right), rtol=1e-6)
