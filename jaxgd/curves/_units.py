"""Which axes of a network's arrays count the same hidden units, read off its program."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
from jax.extend.core import primitives

from jaxgd import _checks
from jaxgd._jaxprs import Atom, Eqn, Jaxpr
from jaxgd.curves import _axes
from jaxgd.curves._axes import Axes
from jaxgd.types import Array, Params, PyTree


def groups_of(
    predict_fn: Callable[..., PyTree], params: Params, x: PyTree
) -> list[list[tuple[PyTree, ...]]]:
    """Reads off a network which axes of its arrays count the same hidden units.

    The function is traced, and each axis of each array followed through it: axes that are
    added, multiplied or contracted with each other belong together. Those that meet an axis of
    the input or of the output stay as they are, and are in no group. It is read from
    elementwise operations, products, convolutions, reductions, pooling, transpositions and
    flattening: dense, convolutional and residual networks, normalization and softmax.

    Args:
      predict_fn: ``predict_fn(params, x)``, an array or a pytree of arrays.
      params: a pytree of floating-point arrays.
      x: an array or a pytree of arrays: inputs, of which only shapes and dtypes count.

    Returns:
      The groups, as ``align`` takes them: lists of ``(path, axis)``, and of
      ``(path, axis, (before, after))`` for an axis over flattened units.

    Raises:
      TypeError: if ``predict_fn`` is not callable, or the params are not floating-point.
      ValueError: if there are no params, or hidden units go through an operation of which it
        is not known what becomes of their order.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curves, neurons
      >>> layers = neurons.init_network(jax.random.key(0), (2, 5, 1))
      >>> curves.groups_of(neurons.apply_network, layers, jnp.ones((3, 2)))
      [[('0/weights', 1), ('0/bias', 0), ('1/weights', 0)]]

    Source:
      Ainsworth, Hayase and Srinivasa, Git Re-Basin: merging models modulo permutation
      symmetries, 2023, Sec. 3.2 and App. A.
    """
    where = "curves.groups_of"
    _checks.function(where, "predict_fn", predict_fn)
    params = _checks.params(where, "params", params)
    for path, leaf in jax.tree.leaves_with_path(x):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            _checks.array(where, f"x{jax.tree_util.keystr(path)}", leaf)

    def predicted(params: Params, x: PyTree) -> list[Array]:
        outputs = jax.tree.leaves(predict_fn(params, x))
        return [_checks.array(where, "the output of predict_fn", leaf) for leaf in outputs]

    cure = "Pass the function that makes the predictions, not the loss."
    with _checks.calling(where, "predict_fn", predict_fn, (params, x), "params, x", cure):
        closed = jax.make_jaxpr(predicted)(params, x)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    marks = [_axes.fresh(leaf.shape) for _, leaf in leaves]
    inputs = [_axes.fixed(var.aval) for var in closed.jaxpr.invars[len(leaves) :]]
    for axes in _read(closed, [*marks, *inputs]):
        for axis in axes:
            _axes.fix(axis)
    found: dict[int, list[tuple[PyTree, ...]]] = {}

    for (path, leaf), axes in zip(leaves, marks, strict=True):
        for axis, mark in enumerate(axes):
            after = leaf.shape[axis]
            before = 1
            for part in mark.parts():
                after //= part.size
                blocks = () if before == after == 1 else ((before, after),)
                before *= part.size
                if part.is_fixed or part.size == 1:
                    continue
                _checks.that(
                    where,
                    not part.unread,
                    "hidden units must go through operations whose effect on their order is known",
                    f"{part.unread} after axis {axis} of {_checks.place(path)!r}",
                    "Write the groups by hand: see curves.align.",
                )
                found.setdefault(id(part), []).append((_checks.place(path), axis, *blocks))
    return list(found.values())


def _read(closed: Jaxpr, arguments: list[Axes]) -> list[Axes]:
    """Follows the axes of the arguments through a program, to those of its outputs."""
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    known: dict[Any, Axes] = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {var: _axes.fixed(var.aval) for var in jaxpr.constvars}

    def axes_of(atom: Atom) -> Axes:
        return _axes.fixed(atom.aval) if isinstance(atom, jex.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        operands = [axes_of(atom) for atom in eqn.invars]
        inner = [eqn.params[name] for name in ("jaxpr", "call_jaxpr") if name in eqn.params]
        if eqn.primitive in _CALLS and inner:
            outputs = _read(inner[0], operands)
        else:
            shapes = [var.aval.shape for var in eqn.outvars]
            outputs = [_axes.fresh(shape) for shape in shapes]
            _RULES.get(eqn.primitive, _unknown)(eqn, operands, outputs)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [axes_of(atom) for atom in jaxpr.outvars]


def _unknown(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    _lose([a for axes in operands for a in axes], [a for axes in outputs for a in axes], eqn)


def _lose(before: Axes, after: Axes, eqn: Eqn) -> None:
    """Gives up following axes; where none of them could be reordered, that loses nothing."""
    if all(part.is_fixed for axis in before for part in axis.parts() if part.size != 1):
        for axis in after:
            _axes.fix(axis)
    else:
        for axis in (*before, *after):
            _axes.leave_unread(axis, eqn.primitive.name)


def _elementwise(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    for axes in operands:
        if axes:
            _join_all(eqn, axes, outputs[0])


def _join_all(eqn: Eqn, axes: Axes, others: Axes) -> None:
    for axis, other in zip(axes, others, strict=True):
        _axes.join(axis, other, eqn.primitive.name)


def _broadcast(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    for axis, place in zip(operands[0], eqn.params["broadcast_dimensions"], strict=True):
        if axis.size == outputs[0][place].size:
            _axes.join(axis, outputs[0][place], eqn.primitive.name)


def _transposed(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    _join_all(eqn, [operands[0][place] for place in eqn.params["permutation"]], outputs[0])


def _squeezed(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    gone = eqn.params["dimensions"]
    _join_all(eqn, [a for place, a in enumerate(operands[0]) if place not in gone], outputs[0])


def _reshaped(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    # Both are one flat array, read as these axes or as those.
    whole = [
        _axes.Axis(math.prod(axis.size for axis in axes)) for axes in (operands[0], outputs[0])
    ]
    for flat, axes in zip(whole, (operands[0], outputs[0]), strict=True):
        flat.factors = list(axes)
    if whole[0].size:
        _axes.join(whole[0], whole[1], eqn.primitive.name)


def _reduced(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    gone = eqn.params["axes"]
    _join_all(eqn, [a for place, a in enumerate(operands[0]) if place not in gone], outputs[0])


def _argument_reduced(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    _reduced(eqn, operands, outputs)
    for place in eqn.params["axes"]:
        _axes.leave_unread(operands[0][place], eqn.primitive.name)


def _multiplied(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    (summed, batched) = eqn.params["dimension_numbers"]
    left, right = operands
    for one, other in (*zip(*summed, strict=True), *zip(*batched, strict=True)):
        _axes.join(left[one], right[other], eqn.primitive.name)
    kept = [left[place] for place in batched[0]]
    for axes, used in ((left, (*summed[0], *batched[0])), (right, (*summed[1], *batched[1]))):
        kept += [axis for place, axis in enumerate(axes) if place not in used]
    _join_all(eqn, kept, outputs[0])


def _convolved(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    if eqn.params["feature_group_count"] != 1 or eqn.params["batch_group_count"] != 1:
        _unknown(eqn, operands, outputs)
        return
    numbers = eqn.params["dimension_numbers"]
    inputs, kernel = operands
    batch, channels, *space = numbers.lhs_spec
    made, taken, *window = numbers.rhs_spec
    _axes.join(inputs[batch], outputs[0][numbers.out_spec[0]], eqn.primitive.name)
    _axes.join(inputs[channels], kernel[taken], eqn.primitive.name)
    _axes.join(kernel[made], outputs[0][numbers.out_spec[1]], eqn.primitive.name)
    ordered = [inputs[p] for p in space] + [kernel[p] for p in window]
    for axis in (*ordered, *(outputs[0][p] for p in numbers.out_spec[2:])):
        _axes.fix(axis)


def _pooled(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    windows = eqn.params["window_dimensions"]
    for before, after, window in zip(operands[0], outputs[0], windows, strict=True):
        _join_if(window == 1 and before.size == after.size, before, after, eqn)


def _sliced(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    for before, after in zip(operands[0], outputs[0], strict=True):
        if after.size == 1:  # one place of it is looked at
            _axes.fix(before)
        else:
            _join_if(before.size == after.size, before, after, eqn)


def _padded(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    paddings = eqn.params["padding_config"]
    for before, after, padding in zip(operands[0], outputs[0], paddings, strict=True):
        _join_if(not any(padding), before, after, eqn)


def _join_if(is_kept: bool, before: _axes.Axis, after: _axes.Axis, eqn: Eqn) -> None:
    """Joins an axis with what became of it, if it has kept its order."""
    if is_kept:
        _axes.join(before, after, eqn.primitive.name)
    else:
        _lose([before], [after], eqn)


def _concatenated(eqn: Eqn, operands: list[Axes], outputs: list[Axes]) -> None:
    joint = eqn.params["dimension"]
    for axes in operands:
        for place, (axis, other) in enumerate(zip(axes, outputs[0], strict=True)):
            _join_if(place != joint, axis, other, eqn)


_Rule = Callable[[Any, list[Axes], list[Axes]], None]

_CALLS = {
    primitives.call_p,
    primitives.closed_call_p,
    primitives.custom_jvp_call_p,
    primitives.custom_vjp_call_p,
    primitives.jit_p,
    primitives.remat_p,
}
_ELEMENTWISE = [
    "abs",
    "acos",
    "acosh",
    "add_jaxvals",
    "add",
    "and",
    "asin",
    "asinh",
    "atan2",
    "atan",
    "atanh",
    "cbrt",
    "ceil",
    "clamp",
    "complex",
    "conj",
    "convert_element_type",
    "copy",
    "cos",
    "cosh",
    "digamma",
    "div",
    "eq",
    "erf_inv",
    "erf",
    "erfc",
    "exp2",
    "exp",
    "expm1",
    "floor",
    "ge",
    "gt",
    "imag",
    "integer_pow",
    "is_finite",
    "le",
    "lgamma",
    "log1p",
    "log",
    "logistic",
    "lt",
    "max",
    "min",
    "mul",
    "name",
    "ne",
    "neg",
    "nextafter",
    "not",
    "or",
    "pow",
    "real",
    "reduce_precision",
    "rem",
    "round",
    "rsqrt",
    "select_n",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "sub",
    "tan",
    "tanh",
    "xor",
]
_RULES: dict[Any, _Rule] = {
    **{getattr(primitives, f"{name}_p"): _elementwise for name in _ELEMENTWISE},
    **{
        getattr(primitives, f"reduce_{name}_p"): _reduced
        for name in ("sum", "max", "min", "prod", "and", "or")
    },
    primitives.argmax_p: _argument_reduced,
    primitives.argmin_p: _argument_reduced,
    primitives.broadcast_in_dim_p: _broadcast,
    primitives.concatenate_p: _concatenated,
    primitives.conv_general_dilated_p: _convolved,
    primitives.dot_general_p: _multiplied,
    primitives.reduce_window_max_p: _pooled,
    primitives.reduce_window_p: _pooled,
    primitives.reduce_window_min_p: _pooled,
    primitives.reduce_window_sum_p: _pooled,
    primitives.pad_p: _padded,
    primitives.reshape_p: _reshaped,
    primitives.slice_p: _sliced,
    primitives.squeeze_p: _squeezed,
    primitives.transpose_p: _transposed,
}
