"""Products over data that do not fit: a batch after the other, read anew for every product.

What a loader yields is read by the host, so the loops around such products run there, too:
``each`` and ``along`` are what ``jax.lax.map`` and ``jax.lax.scan`` are to other products.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd import _checks
from jaxgd.curvature import _vectors
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, PyTree


class OnHost:
    """A function of a vector that reads batches, so that no program can hold it."""

    def __init__(self, call: Callable[[Vector], Vector]) -> None:
        self._call = call

    def __call__(self, vector: Vector) -> Vector:
        return self._call(vector)


class HostProduct(OnHost):
    """A product that reads all batches whenever it is called; each pass must read the same.

    ``batch_product(vector, batch)`` is that of the mean over the batch's rows, traceable.
    """

    def __init__(
        self, caller: str, batches: Any, batch_product: Callable[[Vector, PyTree], Vector]
    ) -> None:
        super().__init__(self._mean)
        self._caller, self._batches = caller, batches
        self._add = jax.jit(_adder(batch_product))
        self._digest: tuple[int, int] | None = None
        self._kind: str | None = None

    def _mean(self, vector: Vector) -> Vector:
        known(self._caller, vector)
        total, num_rows, digest, num_batches = [jnp.zeros_like(v) for v in vector], 0, 0, 0
        for number, raw in enumerate(self._batches):
            name = f"batch {number} of batches"
            batch = _checks.batch(self._caller, name, raw)
            self._kind = _checks.alike(self._caller, name, batch, self._kind)
            rows = len(jax.tree.leaves(batch)[0])
            for leaf in jax.tree.leaves(batch):
                digest = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), digest)
            total = self._add(total, vector, batch, jnp.asarray(rows, total[0].dtype))
            num_rows, num_batches = num_rows + rows, num_batches + 1
        cure = "A generator is read once: pass a list or a loader." if num_batches == 0 else ""
        _checks.that(
            self._caller, num_batches > 0, "batches must hold at least one batch", "none", cure
        )
        self._digest = self._digest or (num_rows, digest)
        _checks.that(
            self._caller,
            self._digest == (num_rows, digest),
            "batches must be the same in every pass",
            f"{self._digest[0]} rows, then {num_rows} rows with other numbers or in another order",
            "Switch off what shuffles or changes the rows; read them into a list.",
        )
        return jax.jit(_vectors.divided)(total, jnp.asarray(num_rows, total[0].dtype))


def _adder(batch_product: Callable[[Vector, PyTree], Vector]) -> Callable[..., Vector]:
    def add(total: Vector, vector: Vector, batch: PyTree, num_rows: Array) -> Vector:
        image = batch_product(vector, batch)
        return [t + num_rows * i for t, i in zip(total, image, strict=True)]

    return add


def check(caller: str, batches: Any, *arguments: Any) -> None:
    """Refuses what cannot be read again and again, and arguments that are traced."""
    _checks.batches(caller, "batches", batches)
    wanted = "batches must be readable more than once"
    cure = "It is read for every product: pass a list or a loader."
    is_spent = isinstance(batches, Iterator)
    _checks.that(caller, not is_spent, wanted, _checks.kind(batches), cure, error=TypeError)
    known(caller, *arguments)


def known(caller: str, *arguments: Any) -> None:
    """Refuses what is traced."""
    wanted = "with batches, which the host reads, key, params and vector must be known"
    cure = "Call it outside jit, vmap and grad."
    is_known = not _checks.is_traced(arguments)
    _checks.that(caller, is_known, wanted, "a traced array", cure, error=TypeError)


def around(product: Any, fn: Callable[[Vector], Vector]) -> Callable[[Vector], Vector]:
    """A function that calls a product, run by the host if the product is."""
    return OnHost(fn) if isinstance(product, OnHost) else fn


def compiled(fn: Callable[..., Any], *, static: int | None = None) -> Any:
    """A function beside the product: one program, compiled once for all calls that no jit holds.

    ``fn`` is to be a function of a module: closures would be compiled for each call.
    """
    return jax.jit(fn, static_argnums=static, inline=True)


def each(product: Any, fn: Callable[[PyTree], PyTree], xs: PyTree) -> PyTree:
    """``jax.lax.map`` for a function that calls the product."""
    if not isinstance(product, OnHost):
        return jax.lax.map(fn, xs)
    return _stacked([fn(x) for x in _slices(xs)])


def along(
    product: Any,
    begin: Callable[[Any, Any], Vector],
    end: Callable[[Any, Any, Vector, Vector], Any],
    carry: PyTree,
    xs: PyTree,
) -> PyTree:
    """``jax.lax.scan`` by steps ``end(carry, x, v, product(v))``, v being ``begin(carry, x)``.

    Functions of a module are compiled once for all calls, closures for each call.
    """
    if not isinstance(product, OnHost):

        def step(carry: PyTree, x: PyTree) -> PyTree:
            vector = begin(carry, x)
            return end(carry, x, vector, product(vector))

        return jax.lax.scan(step, carry, xs)
    # What is carried is written in place; the first vectors are the caller's, so they are copied.
    carry, outputs = _copied(carry), []
    first, last = jax.jit(begin), jax.jit(end, donate_argnums=0)
    for x in _slices(xs):
        vector = first(carry, x)
        carry, output = last(carry, x, vector, product(vector))
        outputs.append(output)
    return carry, _stacked(outputs)


def _slices(xs: PyTree) -> Iterator[Any]:
    for index in range(len(jax.tree.leaves(xs)[0])):
        yield _slice(xs, index)


@jax.jit
def _slice(xs: PyTree, index: Array | int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], xs)


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
