"""Axes of arrays, and what is known of them: which belong together, and which must stay."""

from collections.abc import Sequence

from jaxgd._jaxprs import Aval


class Axis:
    """What is known of an axis: with which others it belongs, and whether it must stay.

    Attributes:
      size: its length.
      same: the axis that stands for it since they were joined, if any.
      factors: the axes that it was flattened from, if it was.
      is_fixed: whether its order has a meaning: it is one of the input or of the output.
      unread: the name of an operation of which it is not known what it does to the order.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.same: Axis | None = None
        self.factors: list[Axis] | None = None
        self.is_fixed = False
        self.unread = ""

    def parts(self) -> list["Axis"]:
        """The axes that stand for it, none of them flattened."""
        if self.same is not None:
            return self.same.parts()
        if self.factors is not None:
            return [part for factor in self.factors for part in factor.parts()]
        return [self]


Axes = list[Axis]  # of one array


def fresh(shape: Sequence[int]) -> Axes:
    return [Axis(size) for size in shape]


def fixed(aval: Aval) -> Axes:
    axes = fresh(aval.shape)
    for axis in axes:
        axis.is_fixed = True
    return axes


def fix(axis: Axis) -> None:
    for part in axis.parts():
        part.is_fixed = True


def leave_unread(axis: Axis, name: str) -> None:
    for part in axis.parts():
        part.unread = part.unread or name


def join(a: Axis, b: Axis, name: str) -> None:
    """Makes two axes of one length one: what orders the one orders the other."""
    left, right = [a], [b]
    while True:
        # Anew each time: an axis may come twice, and have been joined by now.
        left, right = (
            [p for x in axes for p in x.parts() if p.size != 1] for axes in (left, right)
        )
        if not (left and right):
            return
        if left[0] is right[0]:
            left, right = left[1:], right[1:]
        elif left[0].size == right[0].size:
            left[0].same = right[0]
            right[0].is_fixed |= left[0].is_fixed
            right[0].unread = right[0].unread or left[0].unread
            left, right = left[1:], right[1:]
        else:
            if left[0].size < right[0].size:
                left, right = right, left
            coarse, fine = left[0], right
            size, count = 1, 0
            while count < len(fine) and size < coarse.size:
                size *= fine[count].size
                count += 1
            if size != coarse.size:
                for axis in (*left, *right):
                    leave_unread(axis, name)
                return
            for factor in fine[:count]:
                factor.is_fixed |= coarse.is_fixed
                factor.unread = factor.unread or coarse.unread
            coarse.factors = fine[:count]
            left, right = left[1:], right[count:]
