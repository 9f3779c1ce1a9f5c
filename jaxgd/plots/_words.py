"""Numbers in words: labels of ticks, entries of a chain, what a picture shows."""

import jax
import numpy as np
from matplotlib.ticker import MaxNLocator

from jaxgd.types import PyTree

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits: 0.25, 12500, 3.12×10⁻⁵, 10⁶."""
    if value == 0 or not np.isfinite(value):
        return f"{value + 0:g}"
    power = int(f"{value:.{digits - 1}e}".split("e")[1])
    if not -4 <= power < max(digits, 5):
        return _with_power(value, digits)
    text = np.format_float_positional(
        value, precision=digits, unique=False, fractional=False, trim="-"
    )
    return text.replace("-", "−")


def _with_power(value: float, digits: int) -> str:
    """A number as a multiple of a power of ten."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    times = {"1": "", "-1": "−"}.get(mantissa, mantissa.replace("-", "−") + "×")
    return f"{times}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def labels(values: object) -> list[str]:
    """Numbers in as few digits as tell neighbours apart and place each to a twentieth of a gap.

    Powers of ten that reach beyond 0.01 or 1000 are all written as powers.
    """
    values = np.asarray(values, float)
    if values.size and (values > 0).all():
        exponents = np.log10(values).round()
        is_handy = (exponents > -3).all() and (exponents <= 3).all()
        if np.allclose(values, 10.0**exponents, rtol=1e-12, atol=0) and not is_handy:
            return [_with_power(value, 1) for value in values]
    gaps = np.abs(np.diff(np.sort(values)))
    gap = float(gaps[gaps > 0].min()) if (gaps > 0).any() else np.inf
    for digits in range(1, 18):
        rounded = [float(f"{value:.{digits - 1}e}") for value in values]
        close = np.abs(rounded - values) <= np.minimum(0.05 * gap, 0.05 * np.abs(values))
        if close.all() and len(set(rounded)) == len(set(values.tolist())):
            return [number(value, digits) for value in values]
    return [repr(float(value)) for value in values]


def ticks(low: float, high: float, *, log: bool, count: int = 6) -> np.ndarray:
    """About so many round numbers from ``low`` to ``high``; on a logarithmic scale, decades."""
    if log:
        first, last = np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9)
        decades = np.arange(first, last + 1)
        if len(decades) >= 3:
            every = int(np.ceil(len(decades) / (count + 1)))
            return 10.0 ** decades[::every]
        exponents = np.arange(first - 1, last + 1)
        finer = np.outer(10.0**exponents, (1, 2, 5)).ravel()
        finer = finer[(finer >= low * (1 - 1e-9)) & (finer <= high * (1 + 1e-9))]
        if len(finer) >= 3:
            return finer
    if low == high:
        return np.array([low])
    round_numbers = np.asarray(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    slack = 1e-9 * (high - low)
    return round_numbers[(round_numbers >= low - slack) & (round_numbers <= high + slack)]


def entry(tree: PyTree) -> str:
    """A number of a chain; of an array, its shape and its largest entry."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    if leaves and all(leaf.ndim == 0 for leaf in leaves):
        return "\n".join(f"{leaf:.4g}" for leaf in leaves)
    shapes = ", ".join("×".join(map(str, leaf.shape)) or "1" for leaf in leaves)
    largest = max((float(np.abs(leaf).max()) for leaf in leaves if leaf.size), default=0.0)
    return f"{shapes}\nmax |.| {largest:.2g}"
