"""Which rows of the data each step of a descent sees."""

import jax
import jax.core
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd.types import Array, PRNGKey


def minibatches(key: PRNGKey, num_examples: int, *, batch_size: int, num_steps: int) -> Array:
    """Draws the rows of a minibatch for each step, without replacement within an epoch.

    An epoch is a permutation of all rows, cut into ``num_examples // batch_size`` batches; the
    rows left over sit it out. Each epoch is shuffled anew. A longer run with the same key
    begins with the batches of a shorter one.

    Args:
      key: a PRNG key.
      num_examples: how many rows the data have, static.
      batch_size: rows per step, at most ``num_examples``, static.
      num_steps: N, static.

    Returns:
      int32 (N, batch_size): for ``per_step``; the loss takes ``x[rows]``.

    Raises:
      TypeError: if ``key`` is not a PRNG key or a count is no static int.
      ValueError: if a count is too small, or a batch is larger than the data.

    Example:
      >>> import jax
      >>> from jaxgd import descent
      >>> rows = descent.minibatches(jax.random.key(0), 6, batch_size=2, num_steps=4)
      >>> rows.shape, sorted(rows[:3].ravel().tolist())
      ((4, 2), [0, 1, 2, 3, 4, 5])
    """
    where = "descent.minibatches"
    _checks.key(where, "key", key)
    num_examples = _checks.count(where, "num_examples", num_examples, 1)
    batch_size = _checks.count(where, "batch_size", batch_size, 1)
    num_steps = _checks.count(where, "num_steps", num_steps)
    wanted = f"batch_size must be at most num_examples = {num_examples}"
    _checks.that(where, batch_size <= num_examples, wanted, str(batch_size))
    num_batches = num_examples // batch_size  # per epoch
    num_epochs = -(-num_steps // num_batches)

    def epoch(index: Array) -> Array:
        rows = jax.random.permutation(jax.random.fold_in(key, index), num_examples)
        return rows[: num_batches * batch_size].reshape(num_batches, batch_size)

    rows = jax.vmap(epoch)(jnp.arange(num_epochs))
    return rows.reshape(-1, batch_size)[:num_steps].astype(jnp.int32)
