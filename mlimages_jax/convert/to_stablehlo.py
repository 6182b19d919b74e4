# SPDX-License-Identifier: BSD-3-Clause
"""`to-stablehlo`: exports a network as a portable program that needs only jax."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from mlimages_jax.convert.description import description, in_words
from mlimages_jax.convert.weights import (
    complete_folder,
    image_size_of,
    nested,
    read_weights,
)
from mlimages_jax.models.architecture import network_of

_README = """\
# A network as StableHLO

Trained for {step:,} steps. Needs jax {version} or newer and flatbuffers; runs on {platforms}.

    import jax, numpy as np
    from pathlib import Path
    network = jax.export.deserialize(bytearray(Path("network.jaxexport").read_bytes()))
    weights = jax.device_put(dict(np.load("weights.npz")))
    logits, features = jax.jit(network.call)(weights, images)

    images    float32 [B, {size}, {size}, 3], RGB, 2 * value / 255 - 1, for any B
    logits    float32 [B, {classes}]
    features  float32 [B, {features}], before the classifier

{words}"""


def to_stablehlo(
    *,
    checkpoint: str,
    output: Path,
    image_size: int | None = None,
    platforms: tuple[str, ...] = ("cpu", "cuda", "rocm", "tpu"),
) -> None:
    """Write the network as StableHLO with jax.export, for any batch size and without this package.

        mlimages convert to-stablehlo --checkpoint=workdirs/quickstart --output=exported

    The folder gets network.jaxexport (the program), weights.npz (its first argument, which keeps
    the program small and the weights readable), config.json (image size, preprocessing,
    calibration, classes) and a README.md with the lines that load and run both.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        output: the new folder.
        image_size: side of the images in pixels; default: that of the training.
        platforms: where the program will run; it is lowered once for each platform.
    """
    saved, arrays = read_weights(checkpoint)
    size = image_size_of(saved, image_size)
    exported = export_network(arrays, image_size=size, platforms=platforms)
    program = exported.serialize()
    named: dict[str, Any] = dict(arrays)  # NumPy types savez's other keywords as bool
    logits, features = exported.out_avals
    facts = description(saved, image_size=size)
    text = _README.format(
        step=saved.step,
        version=jax.__version__,
        platforms=", ".join(platforms),
        size=size,
        classes=logits.shape[-1],
        features=features.shape[-1],
        words=in_words(facts),
    )
    with complete_folder(output) as folder:
        (folder / "network.jaxexport").write_bytes(program)
        np.savez(folder / "weights.npz", **named)
        (folder / "config.json").write_text(json.dumps(facts, indent=1))
        (folder / "README.md").write_text(text)
    print(f"{output}: the network of {saved.where} for images of {size} x {size}")


def export_network(
    weights: dict[str, np.ndarray], *, image_size: int, platforms: tuple[str, ...]
) -> export.Exported:
    """Exports a function of (weights by name, images [B, S, S, 3]) with symbolic B."""
    network = network_of(nested(weights)["params"])

    def run(arrays: dict[str, Any], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The argument is flat because users get it from numpy.load, which returns names and arrays.
        outputs: Any = network.apply(nested(arrays), images, train=False)
        return outputs

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.float32)
    arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)
    return export.export(jax.jit(run), platforms=platforms)(arrays, images)
