"""What a loss must return: one value per example, of its own prediction and target alone."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxgd import _jaxprs
from jaxgd._checks._values import array
from jaxgd._checks._words import that
from jaxgd.types import Array, PyTree

_CURE = "Give predictions and targets one shape, so that nothing broadcasts."


def one_per_example(where: str, values: PyTree, targets: PyTree) -> Array:
    """Losses whose shape is that of the targets, or their first axes."""
    values = array(where, "the output of loss", values)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(targets)] or [values.shape]
    fits = any(
        values.shape == shape[: values.ndim] and (values.ndim > 0 or shape == ())
        for shape in shapes
    )
    is_mean = values.ndim == 0
    cure = "The mean is taken here: return the losses of the examples." if is_mean else _CURE
    wanted = f"loss must return one value per example of targets of shape {shapes[0]}"
    that(where, fits, wanted, f"shape {values.shape}", cure)
    return values


def each_with_its_own(
    where: str, loss: Callable[..., PyTree], predictions: PyTree, targets: PyTree
) -> None:
    """Refuses a loss that compares every prediction with every target, and then sums over these.

    Its values are one per example, too. But it takes more targets than predictions, or neither
    one example more nor one column more, where there are as many columns as examples.
    """
    made, given = jax.tree.leaves(predictions), jax.tree.leaves(targets)
    if not all(hasattr(leaf, "shape") for leaf in (*made, *given)):
        return
    rows = {leaf.shape[:1] for leaf in (*made, *given)}
    if len(rows) != 1 or rows == {()}:
        return
    ((size,),) = rows

    def computes(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The shapes of what is computed on the way, of operands of some shapes."""
        operands = [
            jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
            for shape, leaf in zip(shapes, (*made, *given), strict=True)
        ]
        try:
            program = jax.make_jaxpr(loss)(
                jax.tree.unflatten(jax.tree.structure(predictions), operands[: len(made)]),
                jax.tree.unflatten(jax.tree.structure(targets), operands[len(made) :]),
            )
        except Exception:  # whatever a loss says of operands that do not fit
            return []
        results = (v for eqn in _jaxprs.equations(program) for v in eqn.outvars)
        return [getattr(v.aval, "shape", ()) for v in results]

    for i, target in enumerate(given):
        others = [leaf for leaf in made if leaf.ndim != target.ndim]
        if not others:
            continue
        longer = [(size + 2, *leaf.shape[1:]) for leaf in (*made, *given)]
        longer[len(made) + i] = (size + 3, *target.shape[1:])
        broadcasts = any({size + 2, size + 3} <= set(shape) for shape in computes(longer))
        if len(made) == len(given) == 1 and size in (*made[0].shape[1:], *target.shape[1:]):
            rest = [leaf.shape[1:] for leaf in (*made, *given)]
            longer = computes([(size + 1, *shape) for shape in rest])
            wider = computes([(size, *(n + (n == size) for n in shape)) for shape in rest])
            broadcasts |= not (longer or wider)
        that(
            where,
            not broadcasts,
            "loss must compare each prediction with its own target",
            f"predictions of shape {others[0].shape} broadcast against targets of shape "
            f"{target.shape}",
            _CURE,
        )
