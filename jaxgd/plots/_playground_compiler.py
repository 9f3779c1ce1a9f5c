"""Compiles functions of numbers, traced by JAX in float64, to JavaScript."""

from collections.abc import Callable

import jax
import numpy as np

from jaxgd import _checks
from jaxgd.plots._playground_rules import RULES
from jaxgd.plots._playground_writer import WHERE, Writer
from jaxgd.types import Array, PyTree


def function(fn: Callable[..., PyTree], *args: PyTree, pool: dict[str, str] | None = None) -> str:
    """A JavaScript function of numbers that does what ``fn`` does.

    It takes one number per leaf of ``args`` and returns an array of numbers, one per leaf of the
    result. It is traced where 64 bits are the default; outside, nothing changes. Constant arrays
    go into ``pool``, which ``constants`` writes, so that several functions share them; without a
    pool the function holds them itself.
    """
    own_pool = {} if pool is None else pool

    def flat(*leaves: Array) -> list[Array]:
        arguments = jax.tree.unflatten(structure, leaves)
        called = _checks.calling(WHERE, "fn", fn, arguments, "the examples")
        with _checks.compilable(WHERE, "fn"), called:
            results = fn(*arguments)
        return [_checks.array(WHERE, "a result of fn", x) for x in jax.tree.leaves(results)]

    with jax.enable_x64(True):
        leaves, structure = jax.tree.flatten(args)
        arrays = [np.asarray(leaf) for leaf in leaves]
        program = jax.make_jaxpr(flat)(*arrays)
        writer = Writer(RULES, own_pool)
        names = [f"a{k}" for k in range(len(leaves))]
        operands = [writer.array(a, name) for a, name in zip(arrays, names, strict=True)]
        results = writer.run(program.jaxpr, program.consts, operands)
        for result in results:
            _checks.that(WHERE, result.size == 1, "the results must be numbers", str(result.shape))
        outputs = ", ".join(f"+{result.at('0')}" for result in results)
    lines = constants(own_pool) if pool is None else []
    lines += [f"  {constant}" for constant in writer.constants]
    body = ["  " + line for line in [*writer.lines, f"  return [{outputs}];"]]
    head = f"  return ({', '.join(names)}) => {{"
    return "\n".join(["(() => {", *lines, head, *body, "  };", "})()"])


def constants(pool: dict[str, str]) -> list[str]:
    """The lines that make the constant arrays of a pool."""
    return [f"const {name} = {expression};" for expression, name in pool.items()]
