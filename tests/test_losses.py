"""What jaxgd.losses promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics

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

    chex.assert_trees_all_close(loss(predictions, targets), witness(predictions, targets))
    chex.assert_trees_all_close(
        *(jax.vmap(jax.grad(f))(predictions.ravel(), targets.ravel()) for f in (loss, witness))
    )


def test_absolute_and_squared_error_weigh_an_outlier_as_in_the_textbook_table():
    labels = jnp.array([1.0, 1.0, 1.0])
    for predictions, absolute, squared in [([1, 2, 3], 3, 5), ([1, 3, 3], 4, 8)]:
        predictions = jnp.array(predictions, float)
        assert losses.absolute_error(predictions, labels).sum() == absolute
        assert losses.squared_error(predictions, labels).sum() == squared


def test_half_squared_error_has_the_residual_as_its_slope(rng):
    z, y = rng.normal(size=(2, 7)).astype(np.float32)

    np.testing.assert_array_equal(jax.vmap(jax.grad(losses.half_squared_error))(z, y), z - y)


@pytest.mark.parametrize("labels_as", [int, float, bool])
def test_binary_cross_entropy_and_its_slope_equal_those_of_optax(rng, labels_as):
    logits = 3 * rng.normal(size=(3, 4)).astype(np.float32)
    labels = (rng.random((3, 4)) < 0.5).astype(labels_as)

    def total(loss, labels):
        return lambda logits: loss(logits, labels).sum()

    ours = total(losses.sigmoid_binary_cross_entropy, labels)
    theirs = total(optax.losses.sigmoid_binary_cross_entropy, labels.astype(np.float32))
    chex.assert_trees_all_close(
        losses.sigmoid_binary_cross_entropy(logits, labels),
        optax.losses.sigmoid_binary_cross_entropy(logits, labels.astype(np.float32)),
        rtol=1e-5,
    )
    chex.assert_trees_all_close(jax.grad(ours)(logits), jax.grad(theirs)(logits), atol=1e-6)


def test_binary_cross_entropy_takes_probabilities_as_labels(rng):
    logits, labels = (
        rng.normal(size=5).astype(np.float32),
        np.array([0.0, 0.1, 0.5, 0.7, 1.0], np.float32),
    )
    p = 1 / (1 + np.exp(-logits.astype(float)))

    expected = -labels * np.log(p) - (1 - labels) * np.log(1 - p)

    np.testing.assert_allclose(
        losses.sigmoid_binary_cross_entropy(logits, labels), expected, rtol=1e-5
    )


@pytest.mark.usefixtures("x64")
def test_both_cross_entropies_equal_the_log_loss_of_scikit_learn(rng):
    logits, labels = rng.normal(size=20), np.arange(20) % 2
    p = 1 / (1 + np.exp(-logits))
    ours = losses.sigmoid_binary_cross_entropy(logits, labels).mean()
    np.testing.assert_allclose(ours, sklearn.metrics.log_loss(labels, p), rtol=1e-12)

    scores, classes = rng.normal(size=(20, 3)), np.arange(20) % 3
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    ours = losses.softmax_cross_entropy_with_integer_labels(scores, classes).mean()
    np.testing.assert_allclose(ours, sklearn.metrics.log_loss(classes, p), rtol=1e-12)


def test_softmax_cross_entropy_and_its_slope_equal_those_of_optax(rng):
    logits, labels = scores_and_labels(rng, 2, 3)

    def total(loss):
        return lambda logits: loss(logits, labels).sum()

    ours = losses.softmax_cross_entropy_with_integer_labels
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels
    chex.assert_trees_all_close(ours(logits, labels), theirs(logits, labels), rtol=1e-5)
    chex.assert_trees_all_close(
        jax.grad(total(ours))(logits), jax.grad(total(theirs))(logits), atol=1e-6
    )


def test_the_cross_entropy_of_one_example_is_not_divided_by_the_number_of_classes():
    loss = losses.softmax_cross_entropy_with_integer_labels(jnp.array([2.0, 5.0, 1.0]), 1)

    np.testing.assert_allclose(loss, np.log(np.exp([2, 5, 1]).sum()) - 5, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.0658839, atol=5e-8)


def test_the_hinge_of_binary_margins_equals_optax_and_scikit_learn(rng):
    scores, labels = 2 * rng.normal(size=20).astype(np.float32), 2 * (np.arange(20) % 2) - 1

    ours = losses.hinge(losses.binary_margin(scores, labels))

    chex.assert_trees_all_close(ours, optax.losses.hinge_loss(scores, labels))
    np.testing.assert_allclose(ours.mean(), sklearn.metrics.hinge_loss(labels, scores), rtol=1e-6)


def test_the_hinge_of_multiclass_margins_equals_optax_and_scikit_learn(rng):
    scores, labels = scores_and_labels(rng, 12)
    labels = np.arange(12) % 5

    ours = losses.hinge(losses.multiclass_margin(scores, labels))

    theirs = optax.losses.multiclass_hinge_loss(scores, jnp.asarray(labels))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(
        ours.mean(), sklearn.metrics.hinge_loss(labels, scores, labels=np.arange(5)), rtol=1e-6
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
    margin = jnp.float32(margin)

    assert losses.hinge(margin) == hinge
    assert losses.squared_hinge(margin) == hinge**2
    assert losses.ramp(margin, -0.5) == ramp


@pytest.mark.parametrize("cut", [-2.0, -0.5, 0.0, 0.75])
def test_a_ramp_is_the_difference_of_two_hinges_and_the_smaller_of_two_losses(cut):
    margins = jnp.linspace(-4, 3, 57)
    ramp = losses.ramp(margins, cut)

    difference = jnp.maximum(0, 1 - margins) - jnp.maximum(0, cut - margins)
    np.testing.assert_allclose(ramp, difference, atol=1e-6)
    np.testing.assert_allclose(ramp, jnp.minimum(losses.hinge(margins), 1 - cut), atol=1e-6)


def test_the_cut_of_a_ramp_may_be_traced(rng):
    margins = rng.normal(size=4).astype(np.float32)

    swept = jax.vmap(losses.ramp, in_axes=(None, 0))(margins, jnp.array([-1.0, 0.0, 0.5]))

    for row, cut in zip(swept, [-1.0, 0.0, 0.5], strict=True):
        np.testing.assert_array_equal(row, losses.ramp(margins, cut))


def test_margins_are_computed_from_their_definitions(rng):
    scores, labels = scores_and_labels(rng, 2, 3)

    true_class = losses.true_class_score(scores, labels)
    margin = losses.multiclass_margin(scores, labels)

    for index in np.ndindex(2, 3):
        mine = scores[index][labels[index]]
        assert true_class[index] == mine
        assert margin[index] == mine - np.delete(scores[index], labels[index]).max()


def test_the_multiclass_margin_ignores_a_constant_and_the_true_class_score_does_not():
    scores, label = jnp.array([2.0, 5.0, 1.0]), jnp.array(1)

    assert losses.multiclass_margin(scores + 8, label) == losses.multiclass_margin(scores, label)
    assert losses.true_class_score(scores + 8, label) == 13.0
    equal = jnp.full(3, 5.0)
    assert all(losses.hinge(losses.true_class_score(equal, y)) == 0 for y in range(3))
    assert all(losses.hinge(losses.multiclass_margin(equal, y)) == 1 for y in range(3))


def test_with_two_classes_the_multiclass_margin_is_a_binary_margin(rng):
    scores = rng.normal(size=(7, 2)).astype(np.float32)
    labels = np.arange(7) % 2

    binary = losses.binary_margin(scores[:, 1] - scores[:, 0], 2 * labels - 1)

    np.testing.assert_allclose(losses.multiclass_margin(scores, labels), binary, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_losses_keep_the_dtype_of_their_predictions(dtype):
    z, y = jnp.array([0.5, -2.0], dtype), jnp.array([1, 0])
    scores, classes = jnp.ones((2, 3), dtype), jnp.array([0, 2])

    for loss in (
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
    ):
        assert loss.dtype == dtype


# Far from zero.


def one(fn):
    """The value and the slope of a function of one number."""
    return jax.jit(jax.value_and_grad(fn))


@pytest.mark.parametrize(
    ("loss", "at", "value", "slope"),
    [
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
    ],
)
def test_losses_stay_exact_at_a_billion(loss, at, value, slope):
    np.testing.assert_allclose(one(loss)(at), (value, slope), rtol=1e-6)


@pytest.mark.parametrize("big", [BIG, -BIG])
def test_softmax_losses_stay_exact_at_a_billion(big):
    scores = jnp.array([big, 0.0, 1.0])
    for label in range(3):
        loss, slopes = jax.value_and_grad(losses.softmax_cross_entropy_with_integer_labels)(
            scores, label
        )
        s = np.array([big, 0.0, 1.0])
        p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        expected = s.max() + np.log(np.exp(s - s.max()).sum()) - s[label]
        np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(slopes, p - np.eye(3)[label], atol=1e-6)

        margin = losses.multiclass_margin(scores, label)
        np.testing.assert_allclose(margin, s[label] - np.delete(s, label).max(), rtol=1e-6)


@pytest.mark.parametrize(("logit", "label"), [(40.0, 1), (-40.0, 0)])
def test_binary_cross_entropy_keeps_the_small_losses(logit, label):
    loss, slope = one(lambda z: losses.sigmoid_binary_cross_entropy(z, label))(logit)

    np.testing.assert_allclose(loss, np.exp(-40), rtol=1e-5)
    np.testing.assert_allclose(abs(slope), np.exp(-40), rtol=1e-5)


def test_softmax_cross_entropy_is_right_where_the_log_of_a_softmax_is_infinite():
    loss = losses.softmax_cross_entropy_with_integer_labels(jnp.array([0.0, 200.0]), 0)

    assert loss == 200.0


# Kinks.


@pytest.mark.parametrize(
    ("loss", "kink"),
    [
        (losses.hinge, 1.0),
        (losses.squared_hinge, 1.0),
        (lambda m: losses.ramp(m, -0.5), 1.0),
        (lambda m: losses.ramp(m, -0.5), -0.5),
        (lambda m: losses.ramp(m, 0.0), 0.0),
        (lambda z: losses.absolute_error(z, 3.0), 3.0),
        (lambda y: losses.absolute_error(3.0, y), 3.0),
    ],
)
def test_at_a_kink_the_slope_is_that_of_the_flat_side(loss, kink):
    assert jax.grad(loss)(kink) == 0.0


@pytest.mark.parametrize(
    ("loss", "at", "slope"),
    [
        (losses.hinge, 1 - 1e-6, -1),
        (losses.hinge, 1 + 1e-6, 0),
        (lambda m: losses.ramp(m, -0.5), 1 - 1e-6, -1),
        (lambda m: losses.ramp(m, -0.5), -0.5 + 1e-6, -1),
        (lambda m: losses.ramp(m, -0.5), -0.5 - 1e-6, 0),
        (lambda z: losses.absolute_error(z, 3.0), 3 + 1e-6, 1),
        (lambda z: losses.absolute_error(z, 3.0), 3 - 1e-6, -1),
    ],
)
def test_beside_a_kink_the_slope_is_that_of_its_side(loss, at, slope):
    assert jax.grad(loss)(at) == slope


def test_at_a_kink_optax_and_jax_take_other_slopes_as_the_docstrings_say():
    assert jax.grad(optax.losses.hinge_loss)(1.0, 1.0) == -0.5
    assert jax.grad(jnp.abs)(0.0) == 1.0


def test_the_slope_of_a_shared_maximum_is_shared():
    scores = jnp.array([4.0, 1.0, 4.0, 9.0])

    slopes = jax.grad(losses.multiclass_margin)(scores, 3)

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
    scores = jnp.array([[1.0, 2.0, 3.0]] * 5 + [[4.0, 1.0, 0.0]])

    values = wrap(loss)(scores, jnp.array([-1, 3, 100, -(2**31), 2**31 - 1, 2]))

    assert jnp.isnan(values[:-1]).all()
    np.testing.assert_allclose(values[-1], loss(jnp.array([4.0, 1.0, 0.0]), 2), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_labels_may_be_of_any_integer_dtype(dtype):
    scores = np.array([[1, 2, 3], [4, 1, 0]], np.float32)

    values = losses.true_class_score(scores, np.array([2, 0], dtype))

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
    labels = jnp.array([*labels, 1.0])

    values = wrap(loss)(jnp.full(6, 0.5), labels)

    assert jnp.isnan(values[:-1]).all()
    assert jnp.isfinite(values[-1])


def test_nan_predictions_stay_nan():
    nan = jnp.array(jnp.nan)

    for value in (losses.hinge(nan), losses.squared_hinge(nan), losses.ramp(nan, 0.0)):
        assert jnp.isnan(value)
    assert jnp.isnan(losses.absolute_error(nan, 0.0))
    assert jnp.isnan(losses.sigmoid_binary_cross_entropy(nan, 1.0))


# The mean over a data set.


def test_an_empirical_risk_is_the_mean_loss_over_the_data(rng):
    neuron = neurons.Neuron(weights=jnp.array([2.0, -1.0]), bias=jnp.array(0.5))
    x, y = rng.normal(size=(7, 2)).astype(np.float32), rng.normal(size=7).astype(np.float32)

    risk = losses.empirical_risk(neurons.weighted_sum, losses.squared_error)

    expected = np.mean([(2 * a - b + 0.5 - t) ** 2 for (a, b), t in zip(x, y, strict=True)])
    np.testing.assert_allclose(risk(neuron, x, y), expected, rtol=1e-6)


def test_an_empirical_risk_takes_integer_labels_and_averages_every_axis(rng):
    scores, labels = scores_and_labels(rng, 2, 3)

    risk = losses.empirical_risk(
        lambda p, x: p * x, losses.softmax_cross_entropy_with_integer_labels
    )

    expected = optax.losses.softmax_cross_entropy_with_integer_labels(2 * scores, labels)
    np.testing.assert_allclose(risk(2.0, scores, labels), expected.mean(), rtol=1e-6)
    chex.assert_shape(risk(2.0, scores, labels), ())


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_a_mean_over_batches_is_the_mean_with_its_derivatives(rng, batch_size):
    scores, labels = rng.normal(size=(7, 4)).astype(np.float32), rng.integers(4, size=7)
    factors, step = rng.normal(size=(2, 1, 4)).astype(np.float32)
    loss = losses.softmax_cross_entropy_with_integer_labels

    def value_gradient_and_product(**options):
        risk = losses.empirical_risk(lambda p, x: jnp.tanh(p * x["x"]), loss, **options)
        gradient = jax.value_and_grad(risk)
        return jax.jit(
            lambda p, v: jax.jvp(lambda p: gradient(p, {"x": scores}, labels), (p,), (v,))
        )(factors, step)

    batched, plain = value_gradient_and_product(batch_size=batch_size), value_gradient_and_product()
    chex.assert_trees_all_close(batched, plain, rtol=2e-5, atol=1e-6)


def test_a_mean_over_batches_averages_every_axis_in_the_dtype_of_the_losses():
    x = jnp.arange(10.0).reshape(5, 2).astype(jnp.bfloat16)

    risk = losses.empirical_risk(lambda p, x: p * x, losses.squared_error, batch_size=2)

    mean = risk(jnp.bfloat16(1.0), x, jnp.zeros((5, 2)))
    assert mean == 28.5  # 0 + 1 + 4 + ... + 81 over 10
    assert losses.empirical_risk(lambda p, x: p * x, losses.squared_error)(
        jnp.bfloat16(1.0), x, jnp.zeros((5, 2), jnp.bfloat16)
    ) == mean.astype(jnp.bfloat16)


@pytest.mark.parametrize("order", ["value", "gradient", "Hessian product"])
def test_a_mean_over_batches_needs_the_memory_of_one_batch(order):
    network = neurons.init_network(jax.random.key(0), (3, 64, 2))
    x, y = jnp.ones((1003, 3)), jnp.zeros(1003, int)

    def temporaries(batch_size):
        risk = losses.empirical_risk(
            neurons.apply_network,
            losses.softmax_cross_entropy_with_integer_labels,
            batch_size=batch_size,
        )
        gradient = jax.grad(risk)
        run = {
            "value": risk,
            "gradient": gradient,
            "Hessian product": lambda p, x, y: jax.jvp(lambda p: gradient(p, x, y), (p,), (p,))[1],
        }[order]
        figures = jax.jit(run).lower(network, x, y).compile().memory_analysis()
        assert figures is not None
        return figures.temp_size_in_bytes

    assert temporaries(50) < temporaries(None) / 8


@pytest.mark.parametrize(
    ("bits", "num_classes"), [("uint8", 256), ("int8", 128), ("int8", 300), ("int16", 2**15)]
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_labels_of_a_narrow_dtype_name_any_class_they_can_hold(bits, num_classes, wrap):
    scores = jnp.zeros((2, num_classes)).at[1, 101].set(5.0)
    labels = jnp.array([0, 101], bits)

    cross_entropy = wrap(losses.softmax_cross_entropy_with_integer_labels)(scores, labels)

    wanted = [np.log(num_classes), np.log(num_classes - 1 + np.exp(5.0)) - 5]
    np.testing.assert_allclose(cross_entropy, wanted, rtol=1e-6)
    np.testing.assert_array_equal(wrap(losses.true_class_score)(scores, labels), [0, 5])
    np.testing.assert_array_equal(wrap(losses.multiclass_margin)(scores, labels), [0, 5])


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
    logits, labels = jnp.arange(25.0).reshape(5, 5) % 7, jnp.array([0, 4, 2, 2, 1])

    right = losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(risk(1.0, logits, labels), right, rtol=1e-6)
