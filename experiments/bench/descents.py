"""Descents timed: one with its whole trace, and a thousand at once."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.race import race, seconds_of, table
from experiments.data.digits import load_digits
from experiments.note import gradient_descent
from experiments.shell.report import Table
from jaxgd import descent, losses, neurons

DESCENT_STEPS, NUM_DESCENTS = 20_000, 1000
TRAINING_STEPS, BATCH_SIZE, NUM_SEEDS = 2000, 64, 20


def descents() -> Table:
    """20,000 steps on the note's 20 points, with the whole trace."""
    x, y = jnp.asarray(gradient_descent.X[:, None]), jnp.asarray(gradient_descent.Y)
    start = neurons.Neuron(weights=jnp.ones(1), bias=jnp.ones(()))
    cost, rate = gradient_descent.COST, gradient_descent.LEARNING_RATE
    value_and_grad = jax.value_and_grad(cost)

    def row(params: Any, loss: Any, grads: Any) -> Any:
        return params, loss, optax.tree.norm(grads, ord="inf")

    @jax.jit
    def bare_scan(params: Any, x: Any, y: Any) -> Any:
        def one_step(params: Any, _: Any) -> Any:
            loss, grads = value_and_grad(params, x, y)
            moved = jax.tree.map(lambda p, g: p - rate * g, params, grads)
            return moved, row(params, loss, grads)

        end, rows = jax.lax.scan(one_step, params, length=DESCENT_STEPS)
        last = row(end, *value_and_grad(end, x, y))
        return end, jax.tree.map(lambda rs, r: jnp.concatenate([rs, r[None]]), rows, last)

    @jax.jit
    def optax_by_hand(params: Any, x: Any, y: Any) -> Any:
        optimizer = optax.sgd(rate)

        def one_step(carry: Any, _: Any) -> Any:
            params, state = carry
            loss, grads = value_and_grad(params, x, y)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), row(params, loss, grads)

        carry = (params, optimizer.init(params))
        return jax.lax.scan(one_step, carry, length=DESCENT_STEPS)

    options: Any = {"num_steps": DESCENT_STEPS}
    by_hand = jax.jit(
        lambda p, x, y: descent.gradient_descent(cost, p, x, y, learning_rate=rate, **options)
    )
    stopping = jax.jit(
        lambda p, x, y: descent.gradient_descent(
            cost, p, x, y, learning_rate=rate, tolerance=1e-4, **options
        )
    )
    optimize = jax.jit(
        lambda p, x, y: descent.optimize(cost, p, x, y, optimizer=optax.sgd(rate), **options)
    )
    ways = {
        "a bare lax.scan": lambda: bare_scan(start, x, y),
        "descent.gradient_descent": lambda: by_hand(start, x, y),
        "descent.optimize(optax.sgd)": lambda: optimize(start, x, y),
        "optax by hand, in a scan": lambda: optax_by_hand(start, x, y),
        f"with a tolerance: {int(stopping(start, x, y).num_steps)} steps": lambda: stopping(
            start, x, y
        ),
    }
    found = race(ways, rounds=20)
    part = 2000
    found["NumPy loop"] = seconds_of(lambda: _numpy_descent(part)) * DESCENT_STEPS / part
    if importlib.util.find_spec("torch") is not None:
        found["torch loop"] = seconds_of(lambda: _torch_descent(part)) * DESCENT_STEPS / part
    title = f"{DESCENT_STEPS} steps on the 20 points, with the whole trace"
    return table(title, found, "a bare lax.scan", " (the loops from 2,000)")


def many_descents() -> Table:
    """1,000 descents of 20,000 steps on the note's 20 points, one per learning rate, in one call.

    Three of the rates diverge. What a caller drops of a Trajectory is not kept: so the less it
    takes, the less memory the call holds. JAX computes in float32 here, NumPy in float64.
    """
    x, y = jnp.asarray(gradient_descent.X[:, None]), jnp.asarray(gradient_descent.Y)
    start = neurons.Neuron(weights=jnp.ones(1), bias=jnp.ones(()))
    rates = jnp.linspace(1e-4, 0.0139, NUM_DESCENTS)

    def run(rate: Any, tolerance: float | None = None) -> descent.Trajectory:
        return descent.gradient_descent(
            gradient_descent.COST, start, x, y, learning_rate=rate, num_steps=DESCENT_STEPS,
            tolerance=tolerance, record=lambda _: None,
        )  # fmt: skip

    def end(trajectory: descent.Trajectory) -> Any:
        return trajectory.params, trajectory.status, trajectory.num_steps

    def end_and_losses(trajectory: descent.Trajectory) -> Any:
        return end(trajectory), trajectory.losses

    def bare(rate: Any) -> Any:
        def one_step(params: Any, _: Any) -> Any:
            grads = jax.grad(gradient_descent.COST)(params, x, y)
            return descent.step(params, grads, rate), None

        return jax.lax.scan(one_step, start, length=DESCENT_STEPS)[0]

    ours = "params, status, num_steps"
    functions = {
        ours: jax.vmap(lambda rate: end(run(rate))),
        "the same, with a tolerance": jax.vmap(lambda rate: end(run(rate, 1e-4))),
        "with the losses": jax.vmap(lambda rate: end_and_losses(run(rate))),
        "with the losses, out_axes=1": jax.vmap(
            lambda rate: end_and_losses(run(rate)), out_axes=(0, 1)
        ),
        "a bare lax.scan: params, unjudged": jax.vmap(bare),
    }
    programs = {name: jax.jit(f).lower(rates).compile() for name, f in functions.items()}
    part, wide = 2000, np.asarray(rates, float)
    slices = {  # of the loops, with the factor that makes them whole
        "NumPy, one after another": (lambda: _numpy_descent(part), NUM_DESCENTS),
        "NumPy, all at once, by hand": (lambda: _numpy_descents(wide, part), 1),
    }
    ways: dict[str, Callable[[], Any]] = {
        name: lambda program=program: program(rates) for name, program in programs.items()
    }
    found = race(ways | {name: way for name, (way, _) in slices.items()})
    for name, (_, factor) in slices.items():
        found[name] *= factor * DESCENT_STEPS / part
    loop = found["NumPy, one after another"]
    rows = [
        (
            name,
            f"{1e3 * seconds:.0f}",
            f"{NUM_DESCENTS * DESCENT_STEPS / seconds / 1e6:.2f}",
            f"{loop / seconds:.1f}",
            _megabytes(programs[name]) if name in programs else "",
        )
        for name, seconds in found.items()
    ]
    title = f"{NUM_DESCENTS} descents of {DESCENT_STEPS} steps on the 20 points, in one call"
    header = ("way", "milliseconds", "million steps / s", "times NumPy's speed", "MB held")
    return Table(f"{title} (NumPy from 2,000 steps)", header, rows)


def training() -> list[Table]:
    """2,000 steps of minibatch Adam on the digits, 64-32-10: losses, accuracies, gradient norms."""
    digits = load_digits(0, test_share=0.0)
    x = jnp.asarray(digits.train_images, jnp.float32)
    y = jnp.asarray(digits.train_labels)
    optimizer = optax.adam(1e-3)

    def loss(params: Any, x: Any, y: Any, rows: Any) -> Any:
        logits = neurons.apply_network(params, x[rows])
        hits = logits.argmax(-1) == y[rows]
        nats = losses.softmax_cross_entropy_with_integer_labels(logits, y[rows])
        return nats.mean(), hits.mean()

    def draw(key: Any) -> Any:
        init, draw = jax.random.split(key)
        start = neurons.init_network(init, (64, 32, 10))
        steps = {"batch_size": BATCH_SIZE, "num_steps": TRAINING_STEPS}
        return start, descent.minibatches(draw, len(x), **steps)

    def bare(params: Any, rows: Any) -> Any:
        def one_step(carry: Any, rows: Any) -> Any:
            params, state = carry
            (value, hits), grads = jax.value_and_grad(loss, has_aux=True)(params, x, y, rows)
            updates, state = optimizer.update(grads, state, params)
            row = value, hits, optax.tree.norm(grads, ord="inf")
            return (optax.apply_updates(params, updates), state), row

        return jax.lax.scan(one_step, (params, optimizer.init(params)), rows)

    def ours(params: Any, rows: Any) -> Any:
        return descent.optimize(
            loss, params, x, y, optimizer=optimizer, num_steps=TRAINING_STEPS, per_step=rows,
            has_aux=True, record=lambda _: None,
        )  # fmt: skip

    one, many = (
        draw(jax.random.key(0)),
        jax.vmap(draw)(jax.random.split(jax.random.key(1), NUM_SEEDS)),
    )
    tables = []
    for name, arguments, transform in (
        ("one run", one, lambda f: f),
        (f"{NUM_SEEDS} seeds at once", many, jax.vmap),
    ):
        ways = {"a bare lax.scan": bare, "descent.optimize": ours}
        jitted = {way: jax.jit(transform(run)) for way, run in ways.items()}
        found = race(
            {way: lambda run=run, a=arguments: run(*a) for way, run in jitted.items()}, rounds=10
        )
        if name == "one run" and importlib.util.find_spec("torch") is not None:
            seconds = seconds_of(lambda: _torch_training(digits, TRAINING_STEPS // 10))
            found["torch loop (from a tenth)"] = 10 * seconds
        title = f"Minibatch Adam, 64-32-10, {TRAINING_STEPS} steps of {BATCH_SIZE} rows: {name}"
        tables.append(table(title, found, "a bare lax.scan"))
    return tables


def _torch_training(digits: Any, steps: int) -> list[Any]:
    torch = importlib.import_module("torch")
    x = torch.tensor(digits.train_images, dtype=torch.float32)
    y = torch.tensor(digits.train_labels)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rows, trace = torch.randint(0, len(x), (steps, BATCH_SIZE)), []
    for batch in rows:
        optimizer.zero_grad()
        logits = model(x[batch])
        value = torch.nn.functional.cross_entropy(logits, y[batch])
        value.backward()
        largest = max(p.grad.abs().max().item() for p in model.parameters())
        hits = (logits.argmax(-1) == y[batch]).float().mean().item()
        trace.append((value.item(), hits, largest))
        optimizer.step()
    return trace


def _megabytes(program: Any) -> str:
    """What a compiled program holds beside its arguments: its results and its temporaries."""
    memory = program.memory_analysis()
    return f"{(memory.output_size_in_bytes + memory.temp_size_in_bytes) / 1e6:.1f}"


def _numpy_descents(rates: Any, steps: int) -> list[Any]:
    """One loop whose every step moves all descents: theta has a column for each."""
    x = np.stack([np.ones(20), gradient_descent.X], axis=1)
    theta, trace = np.ones((2, rates.size)), []
    for _ in range(steps):
        residual = x @ theta - gradient_descent.Y[:, None]
        gradient = x.T @ residual / 20
        loss = np.einsum("ij,ij->j", residual, residual) / 40
        trace.append((theta, loss, np.abs(gradient).max(axis=0)))
        theta = theta - rates * gradient
    return trace


def _numpy_descent(steps: int) -> list[Any]:
    x = np.stack([np.ones(20), gradient_descent.X], axis=1)
    theta, trace = np.ones(2), []
    for _ in range(steps):
        residual = x @ theta - gradient_descent.Y
        gradient = x.T @ residual / 20
        trace.append((theta, residual @ residual / 40, np.abs(gradient).max()))
        theta = theta - gradient_descent.LEARNING_RATE * gradient
    return trace


def _torch_descent(steps: int) -> list[Any]:
    torch = importlib.import_module("torch")

    x = torch.tensor(np.stack([np.ones(20), gradient_descent.X], axis=1))
    y = torch.tensor(gradient_descent.Y)
    theta, trace = torch.ones(2, dtype=x.dtype, requires_grad=True), []
    optimizer = torch.optim.SGD([theta], lr=gradient_descent.LEARNING_RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.mean((x @ theta - y) ** 2) / 2
        loss.backward()
        largest = 0.0 if theta.grad is None else theta.grad.abs().max().item()
        trace.append((theta.detach().clone(), loss.item(), largest))
        optimizer.step()
    return trace
