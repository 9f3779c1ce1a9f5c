"""How does your own function descend? The command writes a page in which it is played.

``python -m experiments play "x**2 + sin(y)**2"`` takes a formula of one or two variables;
``python -m experiments play my_file.py:loss --data points.csv`` a function of a file of yours,
``loss(params, *columns)``, and the numbers it is fitted to.
"""

import argparse
import importlib.util
import inspect
import math
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shell import expressions
from jaxgd import plots

STARTS = (0.8, -0.6)  # no place of symmetry


def main(arguments: Sequence[str]) -> int:
    """Writes the page and says where it is.

    Args:
      arguments: of the command line.

    Returns:
      The exit status: 0, or 2 where the function, the data or the place will not do.
    """
    parser = _parser()
    # A formula may begin with a minus; a blank before it says that it is no option.
    options = parser.parse_args([f" {word}" if _is_negated(word) else word for word in arguments])
    options.what = options.what.strip()
    jax.config.update("jax_enable_x64", True)
    try:
        if options.start is not None and not np.all(np.isfinite(options.start)):
            raise ValueError(f"--start must be finite numbers, got {options.start}.")
        loss_fn, start, data, title = _what(options)
        rate = options.rate if options.rate is not None else _usual_rate(loss_fn, start, data)
        page = plots.playground(
            loss_fn, start, *data, learning_rate=rate, domains=options.domain, title=title
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page, encoding="utf-8")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(
        f"{title}: {len(page) / 1000:.0f} kB, whole in itself. Open it in a browser:\n{options.out}"
    )
    return 0


def _is_negated(word: str) -> bool:
    """Whether a word of the command line is a formula such as -x**2, and no option or number."""
    if not re.match(r"-[^-]", word) or word == "-h":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments play", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("what", help="a formula such as 'x**2 + sin(y)**2', or FILE.py:FUNCTION")
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="CSV",
        help="columns of numbers, passed to the function",
    )
    parser.add_argument(
        "--start", type=float, nargs="+", metavar="NUMBER", help="one or two numbers"
    )
    parser.add_argument("--rate", type=float, help="the learning rate that the page opens with")
    parser.add_argument(
        "--domain", type=float, nargs=2, action="append", metavar=("LOW", "HIGH"),
        help="what is seen of a variable; once for each",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("results/playground.html"), metavar="HTML",
        help="the page to write (default: results/playground.html)",
    )  # fmt: skip
    return parser


def _what(options: argparse.Namespace) -> tuple[Callable[..., Any], Any, tuple[Any, ...], str]:
    """The function, its start, its data, and what the page is called."""
    file, separator, name = options.what.rpartition(":")
    if separator and file.endswith(".py"):
        loss_fn = _function(pathlib.Path(file), name)
        data = () if options.data is None else _columns(options.data)
        data = _fitting(loss_fn, data)
        start = _start_of(loss_fn, data, options.start)
        return loss_fn, start, data, name
    if options.what.endswith(".py"):
        raise ValueError(f"the function must be named, too: {options.what}:FUNCTION.")
    if options.data is not None:
        raise ValueError(
            "--data goes with a function of a file, FILE.py:FUNCTION, not with a formula."
        )
    expression = expressions.parse(options.what)
    count = len(expression.variables)
    if count not in (1, 2):
        got = ", ".join(expression.variables) or "none"
        raise ValueError(f"the formula must have one or two variables, got {got}.")
    numbers = STARTS[:count] if options.start is None else options.start
    if len(numbers) != count:
        raise ValueError(f"--start must be {count} numbers, one per variable, got {len(numbers)}.")
    start = dict(zip(expression.variables, map(float, numbers), strict=True))
    if jax.eval_shape(expression.function, start).dtype == bool:
        raise ValueError(f"the formula must be a number, got true or false: {options.what}")
    return expression.function, start, (), options.what


def _function(file: pathlib.Path, name: str) -> Callable[..., Any]:
    """A function of a Python file, which is run as it is when imported."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.exists():
        raise FileNotFoundError(f"no file {file}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the reader's own file raises
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"{file} must define a function {name!r}.")
    return found


def _columns(file: pathlib.Path) -> tuple[np.ndarray, ...]:
    """The columns of a file of numbers; a first line of words is left out.

    Between the numbers stand commas, blanks, tabs, or semicolons, with which a comma is decimal.
    """
    rows: list[list[float]] = []
    has_heading = False
    text = file.read_text(encoding="utf-8-sig", errors="replace")  # headings come in any encoding
    for number, line in enumerate(text.splitlines(), start=1):
        comma = "." if ";" in line else " "
        words = line.replace('"', " ").replace(",", comma).replace(";", " ").split()
        if not words or line.lstrip().startswith("#"):
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            if rows or has_heading:
                raise ValueError(
                    f"line {number} of {file} must be numbers, got {line!r}."
                ) from None
            has_heading = True
            continue
        if not np.all(np.isfinite(row)):
            raise ValueError(f"line {number} of {file} must be finite numbers, got {line!r}.")
        if rows and len(row) != len(rows[0]):
            wanted = f"line {number} of {file} must have {len(rows[0])} numbers as the first"
            raise ValueError(f"{wanted}, got {len(row)}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} must hold lines of numbers, got none.")
    return tuple(np.array(rows).T)


def _fitting(loss_fn: Callable[..., Any], columns: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
    """The columns one by one, or all in one array, as the function takes them."""
    try:
        inspect.signature(loss_fn).bind(None, *columns)
    except TypeError:
        return (np.stack(columns, axis=1),) if columns else ()
    return columns


def _start_of(loss_fn: Callable[..., Any], data: tuple[Any, ...], numbers: Any) -> Any:
    """The first form of a start with which the function returns a number."""
    if numbers is not None and len(numbers) not in (1, 2):
        raise ValueError(f"--start must be one or two numbers, got {len(numbers)}.")
    two = jnp.array(STARTS if numbers is None or len(numbers) == 1 else numbers)
    one = jnp.asarray(STARTS[0] if numbers is None else numbers[0])
    forms = [
        two,
        {"w": two[0], "b": two[1]},
        {"a": two[0], "b": two[1]},
        {"x": two[0], "y": two[1]},
    ]
    forms = [] if numbers is not None and len(numbers) == 1 else forms
    forms += [] if numbers is not None and len(numbers) == 2 else [one]
    reasons = []
    for form in forms:
        try:
            result = jax.eval_shape(loss_fn, form, *data)
        except Exception as error:  # whatever the reader's own function raises
            reasons.append(str(error).partition("\n")[0])
            continue
        if getattr(result, "shape", None) == ():
            return form
        reasons.append(f"it returned {result}")
    raise ValueError(
        "the function must take one number, two in an array, or w and b in a dict, and return a "
        f"number; got: {reasons[0]}."
    )


def _usual_rate(loss_fn: Callable[..., Any], start: Any, data: tuple[Any, ...]) -> float:
    """Half the rate at which a descent is stable at the start, to one digit."""
    flat, structure = jax.tree.flatten(start)

    def grads(*leaves: Any) -> Any:
        return jax.tree.leaves(jax.grad(loss_fn)(jax.tree.unflatten(structure, leaves), *data))

    step = 1e-4
    largest = 0.0
    for k, leaf in enumerate(flat):
        for index in np.ndindex(np.shape(leaf)):
            moved = jnp.asarray(leaf).at[index].add(step)
            here, there = grads(*flat), grads(*flat[:k], moved, *flat[k + 1 :])
            rise = [jnp.abs(b - a).sum() / step for a, b in zip(here, there, strict=True)]
            largest = max(largest, float(sum(rise)))
    if not math.isfinite(largest) or largest == 0:
        return 0.1
    return float(f"{1 / largest:.0e}")
