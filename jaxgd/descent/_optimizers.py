"""What is particular to Optax's optimizers: their states, and what they ask for."""

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import optax
import optax.contrib
from jax.tree_util import KeyPath

from jaxgd import _checks
from jaxgd.types import Array, Params, PyTree

CURE = "Make it of numbers: optax.adam(0.1), and not of texts or lists."

State: TypeAlias = PyTree  # of an optimizer


def extra_arguments(
    update: Callable[..., PyTree],
    state: State,
    loss: Array,
    grads: Params,
    value: Callable[[Params], Array],
) -> dict[str, Any]:
    """What an optimizer is told beside the gradient. Optax's own refuse what they do not know."""
    if _holds(state, optax.contrib.SAMState):
        return {"grad_fn": lambda params, _: jax.grad(value)(params)}
    if _holds(state, (optax.contrib.HutchinsonState, optax.contrib.SophiaState)):
        return {"obj_fn": value}
    offered = {"value": loss, "grad": grads, "value_fn": value}
    parameters = inspect.signature(update).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return offered
    return {name: argument for name, argument in offered.items() if name in parameters}


def initial_state(
    where: str, optimizer: optax.GradientTransformation, params: Params, state: State
) -> State:
    """The state to start from, as strongly typed arrays: a new one, or the one given."""
    if state is None:
        with _checks.failing(where, "optimizer must make a state of params", CURE):
            state = optimizer.init(params)
        is_lookahead = _holds(state, optax.LookaheadState)
        _checks.that(
            where,
            isinstance(params, optax.LookaheadParams) or not is_lookahead,
            "params must be optax.LookaheadParams for this optimizer",
            _checks.kind(params),
            "Pass optax.LookaheadParams.init_synced(params), and let loss_fn read params.fast.",
        )
    else:
        fresh = jax.eval_shape(optimizer.init, params)
        cure = "Pass Trajectory.state of a run of this optimizer, or None to start anew."
        _checks.like(where, "state", state, "optimizer.init(params)", fresh, cure)
        _same_dtypes(where, state, fresh, cure)
    _checks.that(
        where,
        not _holds(state, optax.contrib.DifferentiallyPrivateAggregateState),
        "optimizer must work on the gradient of loss_fn",
        "one that asks for a gradient per example, as optax.contrib.dpsgd does",
        "Write that loop by hand, with jax.vmap(jax.grad(loss)), or take optax.noisy_sgd.",
    )

    def strong(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, state)


def _same_dtypes(where: str, state: State, fresh: State, cure: str) -> None:
    def same_dtype(path: KeyPath, leaf: Array, like: Array) -> None:
        name, dtype = _checks.entry("state", path), jnp.asarray(leaf).dtype
        wanted = f"{name} must have the dtype of optimizer.init(params), {like.dtype}"
        _checks.that(where, dtype == like.dtype, wanted, str(dtype), cure)

    jax.tree_util.tree_map_with_path(same_dtype, state, fresh)


def as_before(where: str, new: State, old: State) -> State:
    """A state after a step, in the dtypes it had before."""
    cure = "The state must keep its structure and shapes from one step to the next."
    _checks.like(where, "the new state of optimizer", new, "the one before", old, cure)
    return jax.tree.map(lambda n, o: jnp.asarray(n).astype(o.dtype), new, old)


def forgives(state: State) -> bool:
    """Whether an optimizer skips gradients that are not finite: a run goes on after one."""
    return _holds(state, optax.ApplyIfFiniteState)


def _holds(state: State, kind: type | tuple[type, ...]) -> bool:
    """Whether a state has a part of some kind."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return any(isinstance(node, kind) for node in nodes)
