"""Traced programs: names for their parts, and a walk through all that they do.

JAX's own types of these parts declare less than the parts have (no shape of a variable, no
params of a jaxpr's equation), so the names stand for Any.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jax
import jax.extend.core as jex

Jaxpr: TypeAlias = Any
"""A program: ``jax.extend.core.Jaxpr``, or a ``ClosedJaxpr``, which holds its constants."""
Eqn: TypeAlias = Any
"""One operation: ``jax.extend.core.JaxprEqn``."""
Atom: TypeAlias = Any
"""An operand or a result: ``jax.extend.core.Var`` or ``Literal``."""
Aval: TypeAlias = Any
"""What is known of a value before it is computed: its shape and dtype."""


def is_closed(value: object) -> bool:
    """Whether a value is a program with its constants."""
    return hasattr(value, "jaxpr") and hasattr(value, "consts")


def expanded(eqn: Eqn) -> Jaxpr | None:
    """What a composed operation does, as a program of plain ones; None for a plain one.

    Composed are the operations of ``jax.experimental.hijax``: from JAX 0.12 on, searchsorted is
    one. All of them are one primitive, whose only parameter is the operation itself.
    """
    operation = eqn.params.get("_prim")
    if not hasattr(operation, "expand"):
        return None
    return jax.make_jaxpr(operation.expand)(*operation.in_avals)


def equations(program: Jaxpr) -> Iterator[Eqn]:
    """All equations of a program, those of the programs within it included."""
    for eqn in program.eqns:
        yield eqn
        for inner in _programs_in([expanded(eqn), *eqn.params.values()]):
            yield from equations(inner)


def _programs_in(value: Any) -> Iterator[Jaxpr]:
    """The programs among the parameters of an operation."""
    if is_closed(value) or isinstance(value, jex.Jaxpr):
        yield value.jaxpr if is_closed(value) else value
    elif isinstance(value, Mapping):
        yield from _programs_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _programs_in(entry)
