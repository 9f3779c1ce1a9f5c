"""What the functions of this folder ask of params."""

from typing import Any

from jaxgd import _checks
from jaxgd.types import Params


def ends(where: str, loss_fn: Any, first: Params, last: Params) -> tuple[Params, Params]:
    _checks.function(where, "loss_fn", loss_fn)
    first = _checks.params(where, "first", first)
    last = _checks.params(where, "last", last)
    _checks.like(where, "last", last, "first", first)
    return first, last
