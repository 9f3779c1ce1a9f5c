"""The porter: the one place that raises.

Each check names the function, the argument, what was wanted and what came, in that
order, and says the cure when the mistake is a common one. Checks look at types,
shapes, structures and static values only, so they run while tracing and cost nothing
in compiled code. A check that returns something returns the argument, made an array.

Arguments come in one order: where (the public function), the argument's name and value,
what is asked of it, the cure. What only one room asks for is asked there, through ``that``.
"""

from jaxgd._checks._calls import (
    calling,
    compilable,
    differentiable,
    failing,
    named,
    suspecting,
    taking,
    traceable,
    trainable,
)
from jaxgd._checks._losses import each_with_its_own, one_per_example
from jaxgd._checks._trees import (
    alike,
    axes,
    batch,
    batches,
    is_numbers,
    like,
    no_batches,
    params,
    scalar_output,
    scalar_outputs,
    stack_cure,
    trained,
)
from jaxgd._checks._values import (
    array,
    at_least,
    count,
    extra,
    floating,
    function,
    in_order,
    instance,
    integers,
    is_key,
    is_known,
    is_traced,
    key,
    length,
    real,
    same_shape,
    scalar,
)
from jaxgd._checks._words import (
    entry,
    kind,
    place,
    that,
)

__all__ = [
    "alike",
    "array",
    "at_least",
    "axes",
    "batch",
    "batches",
    "calling",
    "compilable",
    "count",
    "differentiable",
    "each_with_its_own",
    "entry",
    "extra",
    "failing",
    "floating",
    "function",
    "in_order",
    "instance",
    "integers",
    "is_key",
    "is_known",
    "is_numbers",
    "is_traced",
    "key",
    "kind",
    "length",
    "like",
    "named",
    "no_batches",
    "one_per_example",
    "params",
    "place",
    "real",
    "same_shape",
    "scalar",
    "scalar_output",
    "scalar_outputs",
    "stack_cure",
    "suspecting",
    "taking",
    "that",
    "traceable",
    "trainable",
    "trained",
]
