# SPDX-License-Identifier: BSD-3-Clause
"""Our training step with the settings of configs/pretrain.py, on a batch that stays on the device.

No data is read. `step_program.py` compiles the same steps without running them.
"""

import concurrent.futures
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.plan import compiled, layers
from mlimages_jax.step import augment, losses, optimizers, steps
from mlimages_jax.step.draws import Key
from mlimages_jax.step.state import TrainState, abstract_state, create_state
from peers import step_ideas
from peers.serve import Values, arguments, serve

NUM_LABELS = 9  # per image; ML-Images has 8.7 on average


def random_batch(*, batch: int, size: int, classes: int) -> steps.Batch:
    """Returns one global batch in the format of the input."""
    rng = np.random.default_rng(0)
    rows = {
        "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "labels": rng.integers(0, classes, (batch, NUM_LABELS), np.int32),
        "confidences": np.ones((batch, NUM_LABELS), np.float32),
        "mask": np.ones(batch, bool),
    }
    return jax.device_put(rows, sharding.by_example(sharding.make_mesh()))


def without_augmentation(_: Key, images: jax.Array) -> jax.Array:
    """Maps images to [-1, 1] and does nothing else."""
    return augment.to_model_input(images)


def make_optimizer(model: ResNet, size: int) -> optax.GradientTransformation:
    """Returns SGD with momentum and weight decay of the kernels."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    decay = optimizers.decay_factors(shapes["params"], weight_decay=1e-4)
    return optimizers.sgd_momentum(momentum=0.9, decay=decay)


def initial_state(
    model: ResNet, optimizer: optax.GradientTransformation, *, size: int, groups: int
) -> TrainState:
    """Returns a fresh state with the counts of the weighted loss."""
    settings: dict[str, Any] = {"image_size": size, "count_groups": groups}
    abstract = abstract_state(model, optimizer, mesh=sharding.make_mesh(), **settings)
    return create_state(model, optimizer, seed=0, abstract=abstract, **settings)


def make_step(
    name: str, *, group_size: int, model: ResNet, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, steps.Batch], Any]:
    """Returns the step of a variant: plain, weighted, augmented or full (both)."""
    loss: losses.Loss = losses.plain_sigmoid_cross_entropy
    if name in ("full", "weighted"):
        loss = functools.partial(losses.weighted_loss, group_size=group_size)
    augmented = name in ("full", "augmented")
    return functools.partial(
        steps.train_step,
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=lambda _: jnp.float32(1e-3),
        augmentation=augment.pretrain_augment if augmented else without_augmentation,
        seed=0,
    )


class Variant:
    """A compiled step and its state.

    Args:
        name: The variant: plain, weighted, augmented or full (both).
        group_size: Images per group of the weighted loss.
        initial: Initial state, which is copied.
        batch: Batch to train on.
        model: Network.
        optimizer: Optimizer.

    Attributes:
        state: State after the steps so far.
        compile_seconds: Time to trace and compile.
        memory: Bytes of arguments, results and temporaries of the program; donated arguments count
            once.
    """

    def __init__(
        self,
        name: str,
        *,
        group_size: int,
        initial: TrainState,
        batch: steps.Batch,
        model: ResNet,
        optimizer: optax.GradientTransformation,
    ):
        step = make_step(name, group_size=group_size, model=model, optimizer=optimizer)
        self.state = jax.tree.map(jnp.copy, initial)
        self.batch = batch
        places = jax.tree.map(lambda leaf: leaf.sharding, initial)
        metrics_place = sharding.replicated(sharding.make_mesh())
        start = time.perf_counter()
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, metrics_place))
        self.compiled = jitted.lower(self.state, batch).compile()
        self.compile_seconds = time.perf_counter() - start
        self.memory = compiled.program_bytes(self.compiled)
        self._warm = False

    def seconds(self, steps: int) -> float:
        """Runs the given number of steps and waits for the last one; returns the time.

        The first call runs one more step, which is not timed. Before it the variant keeps only its
        state on the device, which other processes may share while they compile.
        """
        if not self._warm:
            self._warm = True
            self.seconds(1)
        state: TrainState = self.state
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = self.compiled(state, self.batch)
        jax.block_until_ready(state)
        self.state = state
        return time.perf_counter() - start


def network(options: Values) -> ResNet:
    """Returns the network of the options."""
    return ResNet(
        options["classes"],
        stage_sizes=STAGE_SIZES[options["depth"]],
        group_size=options["group_size"],
        dtype=jnp.dtype(options["dtype"]),
        remat=options.get("remat", False),
    )


def main() -> None:
    """Serves the time of `steps` steps of the requested variant."""
    options = arguments()
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    resolved = {
        "batch": options["batch"] or (4 if on_cpu else 256) * jax.device_count(),
        "dtype": options["dtype"] or ("float32" if on_cpu else "bfloat16"),
        "steps": options["steps"] or (2 if on_cpu else 30),
    }
    options |= resolved
    options["group_size"] = min(options["group_size"], options["batch"])
    # Before ideas replace the layers that it counts; they change how, not what is computed.
    macs = layers.forward_macs(network(options), options["size"])
    step_ideas.adopt(options.get("ideas", []))
    model = network(options)
    batch = random_batch(**{name: options[name] for name in ("batch", "size", "classes")})
    optimizer = make_optimizer(model, options["size"])
    groups = options["batch"] // options["group_size"]
    initial = initial_state(model, optimizer, size=options["size"], groups=groups)
    make = functools.partial(
        Variant,
        group_size=options["group_size"],
        initial=initial,
        batch=batch,
        model=model,
        optimizer=optimizer,
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:  # the compiler releases the GIL
        variants = dict(zip(options["variants"], pool.map(make, options["variants"]), strict=True))

    def answer(name: str) -> Values:
        seconds = variants[name].seconds(options["steps"])
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
        return {"seconds": seconds, "peak_bytes": peak}

    about = resolved | {
        "version": f"jax {jax.__version__}",
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(initial.params)),
        "macs": macs,
        "compile_seconds": {name: each.compile_seconds for name, each in variants.items()},
        "memory": {name: each.memory for name, each in variants.items()},
    }
    serve(about, answer)


if __name__ == "__main__":
    main()
