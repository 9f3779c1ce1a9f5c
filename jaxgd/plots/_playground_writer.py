"""Writes JavaScript: values, loops over arrays, constants packed into text.

A program of JAX becomes one JavaScript function of numbers. All shapes are known, so every array
is a flat ``Float64Array`` with a place of its own, made once, and every operation is a loop over
it. A value of one entry is a plain number. Three ideas keep the program short and fast:

* what does not depend on the inputs is computed here, by JAX or NumPy, and packed as a constant;
* what is computed entry by entry and read once is not stored: its expression stands where it is
  read (so ``jnp.sum((x - y) ** 2)`` is one loop);
* what only moves entries is the map from each result's index to its operand's, found by moving
  the indices themselves.
"""

import base64
import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxgd import _checks, _jaxprs
from jaxgd._jaxprs import Atom, Aval, Eqn, Jaxpr
from jaxgd.plots import _playground_numpy as by_numpy

WHERE = "plots.playground"
_LONGEST = 600  # characters of an expression that is not stored
_PACKINGS = (np.uint8, np.int16, np.int32, np.float32, np.float64)
_DTYPES = "bool, int8 to int64, uint8 to uint64, float32, float64"


class Value(NamedTuple):
    """What a variable of the program is in JavaScript.

    Attributes:
      shape: that of the array; a value of one entry is a number, whatever its shape.
      dtype: of its entries; a key of ``jax.random`` has a dtype, too.
      at: the expression of an entry, from the expression of its index.
      name: the variable that holds the whole of it, where there is one.
      known: the array itself, where it does not depend on the inputs.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    at: Callable[[str], str]
    name: str | None = None
    known: Any = None

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


Rule = Callable[["Writer", Any, Sequence[Value]], Sequence[Value]]
"""Writes an equation: from the values of its operands to those of its results."""


class Writer:
    """A JavaScript function on its way: the lines written so far, and the constants above them."""

    def __init__(self, rules: Mapping[Any, Rule], pool: dict[str, str]) -> None:
        """``pool`` takes the constant arrays: their expressions, and their names."""
        self.rules = rules
        self.pool = pool
        self.constants: list[str] = []
        self.lines: list[str] = []
        self._indent = 1
        self._count = 0

    def line(self, text: str) -> None:
        """Writes a line at the present depth."""
        self.lines.append("  " * self._indent + text)

    @contextlib.contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Writes ``head { ... }`` around what is written inside."""
        self.line(f"{head} {{")
        self._indent += 1
        yield
        self._indent -= 1
        self.line("}")

    def fresh(self, letter: str) -> str:
        """A new name."""
        self._count += 1
        return f"{letter}{self._count}"

    def buffer(self, size: int) -> str:
        """The name of an array of its own for one result, made once and filled at every call."""
        name = self.fresh("b")
        self.constants.append(f"const {name} = new Float64Array({size});")
        return name

    def known(self, array: Any) -> Value:
        """A value that does not depend on the inputs."""
        if jnp.issubdtype(array.dtype, jax.dtypes.extended):  # a key: only JAX reads it
            return Value(array.shape, array.dtype, lambda _: "undefined", known=array)
        plain = np.asarray(array)
        flat = plain.ravel()
        if (
            flat.size
            and (flat.view(f"V{flat.itemsize}") == flat[:1].view(f"V{flat.itemsize}")).all()
        ):
            literal = number(flat[0])
            name = literal if flat.size == 1 else None
            return Value(plain.shape, plain.dtype, lambda _: literal, name, array)
        return Value(plain.shape, plain.dtype, lambda i: f"{self.packed(flat)}[{i}]", known=array)

    def packed(self, flat: np.ndarray) -> str:
        """The name of a constant array, packed in the narrowest numbers that hold it exactly."""
        _check_dtype(flat.dtype)
        wide = flat.astype(np.float64)
        with np.errstate(all="ignore"):
            kinds = ((kind, wide.astype(kind)) for kind in _PACKINGS)
            kind, narrow = next(
                (kind, narrow)
                for kind, narrow in kinds
                if narrow.astype(float).tobytes() == wide.tobytes()
            )
        little_endian = narrow.astype(np.dtype(kind).newbyteorder("<"))
        text = base64.b64encode(little_endian.tobytes()).decode()
        expression = f'unpacked("{text}", "{np.dtype(kind).name}")'
        return self.pool.setdefault(expression, f"c{len(self.pool) + 1}")

    def scalar(self, aval: Aval, expression: str) -> Value:
        """Keeps one number under a name."""
        name = self.fresh("v")
        self.line(f"const {name} = {expression};")
        return Value(aval.shape, aval.dtype, lambda _: name, name)

    def stored(self, value: Value) -> Value:
        """The same value, with a variable that holds the whole of it."""
        if value.name is not None:
            return value
        if value.known is not None:
            return value._replace(name=self.packed(np.asarray(value.known).ravel()))
        if value.size == 1:
            return self.scalar(value, value.at("0"))
        name = self.buffer(value.size)
        i = self.fresh("i")
        self.line(f"for (let {i} = 0; {i} < {value.size}; {i}++) {name}[{i}] = {value.at(i)};")
        return Value(value.shape, value.dtype, lambda i: f"{name}[{i}]", name)

    def array(self, aval: Aval, name: str) -> Value:
        """A value that a variable holds: a number, or an array."""
        at = (lambda _: name) if math.prod(aval.shape) == 1 else (lambda i: f"{name}[{i}]")
        return Value(tuple(aval.shape), aval.dtype, at, name)

    def each(self, aval: Aval, at: Callable[[str], str]) -> Value:
        """A value computed entry by entry: an expression, or a number already stored."""
        _check_dtype(aval.dtype)
        value = Value(tuple(aval.shape), aval.dtype, lambda i: rounded(aval.dtype, at(i)))
        is_long = len(value.at("i")) > _LONGEST
        return self.stored(value) if value.size == 1 or is_long else value

    @contextlib.contextmanager
    def loop(self, shape: Sequence[int], *maps: np.ndarray) -> Iterator[tuple[str, list[str]]]:
        """Writes a loop over all indices of a shape.

        Each map gives, per entry of the shape, an index elsewhere. The block gets the expression
        of the flat index and those of the maps: a sum of multiples where the map is one, in one
        loop or in nested ones, else an entry of a table.
        """
        size = math.prod(shape)
        is_flat = all(_multiples((size,), m) is not None for m in maps)
        if is_flat or all(_multiples(shape, m) is None for m in maps):
            shape = (size,)
        axes = [length for length in shape if length != 1]
        names = [self.fresh("i") for _ in axes]
        flat = _sum_of(names, 0, [math.prod(axes[k + 1 :]) for k in range(len(axes))])
        with contextlib.ExitStack() as stack:
            for name, length in zip(names, axes, strict=True):
                head = f"for (let {name} = 0; {name} < {length}; {name}++)"
                stack.enter_context(self.block(head))
            found = []
            for m in maps:
                form = _multiples(axes, m)
                if form is None:
                    found.append(f"{self.packed(m.ravel())}[{flat}]")
                else:
                    found.append(_sum_of(names, *form))
            yield flat, found

    def pulled(self, aval: Aval, operand: Value, source: np.ndarray, missing: str = "NaN") -> Value:
        """The entries of an operand at given indices; ``missing`` where the index is negative."""
        shape = tuple(aval.shape)
        if math.prod(shape) == 1 and source.min() >= 0:
            if operand.size == 1:
                return operand._replace(shape=shape)
            return self.scalar(aval, operand.at(f"{int(source.item())}"))
        if source.size == operand.size and np.array_equal(source.ravel(), np.arange(source.size)):
            return operand._replace(shape=shape)
        if operand.size == 1 and source.size and source.min() >= 0:
            stored = self.stored(operand)
            return Value(shape, aval.dtype, lambda _: stored.at("0"))
        operand, name = self.stored(operand), self.buffer(math.prod(shape))
        with self.loop(shape, source) as (i, [j]):
            if source.size and source.min() < 0:
                self.line(f"{name}[{i}] = {j} < 0 ? {missing} : {operand.at(j)};")
            else:
                self.line(f"{name}[{i}] = {operand.at(j)};")
        return self.buffered(aval, name)

    def whole(self, value: Value) -> str:
        """The name of an array that holds a value, also where it is a single number."""
        stored = self.stored(value)
        return f"[{stored.name}]" if stored.size == 1 else f"{stored.name}"

    def buffered(self, aval: Aval, buffer: str) -> Value:
        """A buffer as a value: its only entry, where it has one."""
        if math.prod(aval.shape) == 1:
            return self.scalar(aval, f"{buffer}[0]")
        return self.array(aval, buffer)

    def filled(self, aval: Aval, first: Value, fill: Callable[[str], None]) -> Value:
        """A result in a buffer that starts as a copy of ``first`` and is then written into."""
        name = self.buffer(math.prod(aval.shape))
        if first.size == 1 or (first.known is not None and first.at("0") == first.at("1")):
            self.line(f"{name}.fill({first.at('0')});")
        else:
            self.line(f"{name}.set({self.stored(first).name});")
        fill(name)
        return self.buffered(aval, name)

    def run(self, program: Jaxpr, consts: Sequence[Any], operands: Sequence[Value]) -> list[Value]:
        """Writes a whole program into this function: its results."""
        needed, equations = {v for v in program.outvars if not isinstance(v, jex.Literal)}, []
        for eqn in reversed(program.eqns):
            if any(v in needed for v in eqn.outvars):
                equations.append(eqn)
                needed.update(v for v in eqn.invars if not isinstance(v, jex.Literal))
        reads = Counter(
            v
            for atoms in [program.outvars, *(eqn.invars for eqn in equations)]
            for v in atoms
            if not isinstance(v, jex.Literal)
        )
        env: dict[Any, Value] = {}

        def keep(v: Atom, value: Value) -> None:
            env[v] = self.stored(value) if reads[v] > 1 and value.known is None else value

        def read(atom: Atom) -> Value:
            if isinstance(atom, jex.Literal):
                return self.known(np.asarray(atom.val, atom.aval.dtype))  # pyright: ignore
            return env[atom]

        for v, const in zip(program.constvars, consts, strict=True):
            env[v] = self.known(const)
        for v, operand in zip(program.invars, operands, strict=True):
            keep(v, operand)
        for eqn in reversed(equations):
            for v, value in zip(
                eqn.outvars, self.apply(eqn, [*map(read, eqn.invars)]), strict=True
            ):
                keep(v, value)
        return [read(v) for v in program.outvars]

    def apply(self, eqn: Eqn, operands: Sequence[Value]) -> Sequence[Value]:
        """Writes one equation; what is known is computed at once."""
        if all(operand.known is not None for operand in operands):
            is_plain = all(isinstance(operand.dtype, np.dtype) for operand in operands)
            if is_plain and eqn.primitive in by_numpy.KNOWN:
                arrays = [np.asarray(operand.known) for operand in operands]
                with np.errstate(all="ignore"):
                    results = by_numpy.KNOWN[eqn.primitive](*arrays, **eqn.params)
                multiple = eqn.primitive.multiple_results
                return [*map(self.known, results if multiple else [results])]
            with eqn.ctx.manager:
                parameters = eqn.primitive.get_bind_params(eqn.params)
                results = eqn.primitive.bind(*(o.known for o in operands), **parameters)
            return [*map(self.known, results if eqn.primitive.multiple_results else [results])]
        composed = _jaxprs.expanded(eqn)
        if composed is not None:
            return self.run(composed.jaxpr, composed.consts, operands)
        self.check(eqn)
        return self.rules[eqn.primitive](self, eqn, operands)

    def check(self, eqn: Eqn) -> None:
        """Refuses a primitive that has no rule."""
        known = ", ".join(sorted({primitive.name for primitive in self.rules}))
        _checks.that(
            WHERE,
            eqn.primitive in self.rules,
            "loss_fn and its gradient must be made of operations that JavaScript can do here",
            f"{eqn.primitive.name!r}",
            f"Known: {known}; and any other where it does not depend on the params.",
        )


def number(value: Any) -> str:
    """A number as JavaScript writes it."""
    if not isinstance(value.item(), float):
        whole = int(value)
        return str(whole) if abs(whole) <= 2**53 else f"{whole}n"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    literal = repr(float(value))
    return f"({literal})" if literal.startswith("-") else literal


def rounded(dtype: np.dtype, expression: str) -> str:
    """An expression of doubles, rounded or wrapped to a dtype.

    Integers of 64 bits are doubles here, exact up to 2**53, or BigInts where they are the bits of
    a double.
    """
    match np.dtype(dtype).name:
        case "float32":
            return f"Math.fround({expression})"
        case "int32":
            return f"({expression} | 0)"
        case "uint32":
            return f"({expression} >>> 0)"
        case "int8" | "int16" as name:
            unused = 32 - int(name.removeprefix("int"))
            return f"({expression} << {unused} >> {unused})"
        case "uint8" | "uint16" as name:
            return f"({expression} & {2 ** int(name.removeprefix('uint')) - 1})"
    return expression


def _check_dtype(dtype: np.dtype) -> None:
    is_known = getattr(dtype, "kind", "V") in "biuf" and dtype.name != "float16"
    wanted = f"the numbers of the program must be of a dtype that JavaScript has here ({_DTYPES})"
    _checks.that(WHERE, is_known, wanted, str(dtype))


def _multiples(shape: Sequence[int], indices: np.ndarray) -> tuple[int, list[int]] | None:
    """An offset and one stride per axis that make the indices, if some do."""
    shape = tuple(length for length in shape if length != 1)
    indices = indices.reshape(shape)
    if indices.size == 0:
        return 0, [0] * len(shape)
    offset = int(indices.flat[0])
    strides = [
        int(indices[tuple(int(axis == k) for axis in range(len(shape)))]) - offset
        for k in range(len(shape))
    ]
    grid = sum((np.arange(n) * s).reshape([-1 if k == axis else 1 for axis in range(len(shape))])
               for k, (n, s) in enumerate(zip(shape, strides, strict=True)))  # fmt: skip
    return (offset, strides) if np.array_equal(offset + grid + 0 * indices, indices) else None


def _sum_of(names: Sequence[str], offset: int, strides: Sequence[int]) -> str:
    terms = [
        name if stride == 1 else f"{stride} * {name}"
        for name, stride in zip(names, strides, strict=True)
        if stride
    ]
    return " + ".join([str(offset), *terms] if offset or not terms else terms)
