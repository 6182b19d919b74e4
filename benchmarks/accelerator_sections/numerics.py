# SPDX-License-Identifier: BSD-3-Clause
"""Checks the device's numbers: against the original code, a CPU's gradients, and a repetition.

GPUs and TPUs compute float32 convolutions and matrix products with fewer bits unless `highest`
precision is requested, so both are shown.
"""

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peers import ours_step

from accelerator_sections import Section, Settings, table
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.step import losses

PRECISIONS = {"float32, highest": "highest", "float32, default": "default", "bfloat16": "default"}
SMALL: dict[str, Any] = {"stage_sizes": (1, 1, 1, 1), "num_classes": 50}


def measure(settings: Settings) -> Iterator[Section]:
    """Runs all comparisons, one line each."""
    found: dict[str, float] = {}
    if settings.golden:
        found |= forward_against_the_original(Path(settings.golden), limit=settings.size)
        found |= loss_against_the_original(Path(settings.golden))
    found |= gradients_against_the_cpu()
    found |= repeated_steps(settings)
    rows = [[name, f"{value:.2e}"] for name, value in found.items()]
    yield Section(table(["largest difference, relative to the largest number", ""], rows), found)


def forward_against_the_original(golden: Path, *, limit: int) -> dict[str, float]:
    """Compares features and logits of deterministic weights, for images up to `limit` pixels."""
    # The mapping of the original's variables to our names is in the tests, which are no package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    reference = importlib.import_module("tests.support.reference")

    found = {}
    for case in ("resnet50_c1000_64_seed0", "resnet101_c1000_224_seed0"):
        numbers = np.load(golden / f"forward_{case}.npz")
        depth, classes = int(numbers["resnet_size"]), int(numbers["class_num"])
        places = [int(numbers[key]) for key in ("seed", "n", "height", "width")]
        if places[-1] > limit:
            continue
        images = reference.input_images(*places)
        variables = reference.variables(golden, depth, classes)
        for name, precision in PRECISIONS.items():
            dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
            model = ResNet(classes, stage_sizes=STAGE_SIZES[depth], dtype=dtype)
            with jax.default_matmul_precision(precision):
                logits, features = jax.jit(model.apply)(variables, images)
            shown = numbers["logits"]
            found[f"{case}, features, {name}"] = _difference(features, numbers["feat"])
            found[f"{case}, logits, {name}"] = _difference(logits[:, : shown.shape[1]], shown)
    return found


def loss_against_the_original(golden: Path) -> dict[str, float]:
    """Compares thirty steps of the weighted loss and its gradient, with running counts."""
    numbers = np.load(golden / "loss_a_b16_c40_thres0.7_neg0.3.npz")
    counts: Any = losses.initial_counts(1, numbers["labels"].shape[2])
    values, gradients = [], []

    def one(logits: Any, targets: Any, counts: Any, selected: Any) -> Any:
        return losses.weighted_sigmoid_cross_entropy(logits, targets, counts, selected=selected)

    step = jax.jit(jax.value_and_grad(one, has_aux=True))
    for row in range(len(numbers["labels"])):
        selected = numbers["neg_select"][row][None] > 0
        (value, counts), gradient = step(
            numbers["logits"][row], numbers["labels"][row], counts, selected
        )
        values.append(value)
        gradients.append(gradient)
    return {
        "weighted loss": _difference(np.array(values), numbers["cross_entropy"]),
        "gradient of the weighted loss": _difference(np.array(gradients), numbers["grad_logits"]),
    }


def gradients_against_the_cpu() -> dict[str, float]:
    """Compares gradients of a small network on the device and on this machine's CPU."""
    images = np.random.default_rng(0).uniform(-1, 1, (8, 64, 64, 3)).astype(np.float32)

    def total(params: Any, statistics: Any, model: ResNet) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.square(logits.astype(jnp.float32)).mean()

    reference = ResNet(**SMALL, group_size=4)
    with jax.default_device(jax.devices("cpu")[0]):
        variables = jax.jit(reference.init)(jax.random.key(0), images)
        weights = jax.device_get((variables["params"], variables["batch_stats"]))
        expected = jax.jit(jax.grad(functools.partial(total, model=reference)))(*weights)
    found = {}
    for name, precision in PRECISIONS.items():
        dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        model = ResNet(**SMALL, group_size=4, dtype=dtype)
        with jax.default_matmul_precision(precision):
            gradients = jax.jit(jax.grad(functools.partial(total, model=model)))(*weights)
        # Norms per leaf: in bfloat16 the largest difference of single elements says little.
        ratios: list[float] = jax.tree.leaves(jax.tree.map(_relative_norm, gradients, expected))
        found[f"gradients against the CPU, {name}, worst leaf"] = max(ratios)
        median = float(np.median(ratios))
        found[f"gradients against the CPU, {name}, median leaf"] = median
    return found


def repeated_steps(settings: Settings) -> dict[str, float]:
    """Runs three steps from one state twice; the difference is 0 if restarts can be bit-exact."""
    size, batch_size = min(settings.size, 96), min(settings.batch, 32)
    model = ResNet(
        1000, stage_sizes=STAGE_SIZES[50], group_size=batch_size, dtype=jnp.dtype(settings.dtype)
    )
    optimizer = ours_step.make_optimizer(model, size)
    initial = ours_step.initial_state(model, optimizer, size=size, groups=1)
    variant = ours_step.Variant(
        "full",
        group_size=batch_size,
        initial=initial,
        batch=ours_step.random_batch(batch=batch_size, size=size, classes=1000),
        model=model,
        optimizer=optimizer,
    )
    ends = []
    for _ in range(2):
        variant.state = jax.tree.map(jnp.copy, initial)
        for _ in range(3):
            variant.state, _ = variant.compiled(variant.state, variant.batch)
        ends.append(jax.device_get(variant.state.params))
    differences: list[float] = jax.tree.leaves(jax.tree.map(_difference, *ends))
    flags = os.environ.get("XLA_FLAGS", "") or "default flags"
    return {f"the same three steps twice ({flags})": max(differences)}


def _difference(found: Any, expected: Any) -> float:
    """Returns the largest difference, divided by the largest absolute value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.max(np.abs(found - expected)) / max(float(np.max(np.abs(expected))), 1e-30))


def _relative_norm(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
