# SPDX-License-Identifier: BSD-3-Clause
"""`to-torch`: the network as a plain PyTorch module with its weights; works without PyTorch."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from mlimages_jax.checkpoints import own_thresholds
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.description import description
from mlimages_jax.convert.torch_names import state_dict
from mlimages_jax.convert.weights import complete_folder, read_weights

CONFIG = "config.json"
_HERE = Path(__file__).parent
_CROP = {"central": 0.8, "whole": 1.0}  # the fraction of a side that is seen; else 224 / 256


def to_torch(*, checkpoint: str, output: Path, timm: bool = False) -> None:
    """Write the network for PyTorch: a self-contained module, a state dict and a description.

        mlimages convert to-torch --checkpoint=workdirs/quickstart --output=exported

    The folder gets resnet.py, which needs torch and safetensors only, weights.safetensors, and
    config.json: architecture, image size, preprocessing, calibration and classes. In that folder:
    `import resnet; model = resnet.load(".")`. With --timm the module has the interface of timm's
    models and the weights their names, in model.safetensors: `resnet.create_model(".")`.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        output: the new folder.
        timm: give it the interface and the names of timm.
    """
    saved, arrays = read_weights(checkpoint)
    architecture = layout.check(arrays, where=str(saved.where))
    if not architecture.stem_kernel % 2:
        raise ConvertError(
            f"{saved.where}: the first kernel has {architecture.stem_kernel} pixels per "
            "side; PyTorch pads both sides equally, which requires an odd number"
        )
    data = save(state_dict(arrays, timm=timm), {"format": "pt"})
    config: dict[str, Any] = {"architecture": architecture._asdict(), **description(saved)}
    # Unused by the module: `from-torch` restores the workdir's other files from it.
    config["saved"] = {
        "config": saved.config,
        "dictionary": saved.class_list,
        "thresholds": (own_thresholds.thresholds_of(saved) and saved.thresholds) or "",
    }
    if timm:
        config["pretrained_cfg"] = _timm_config(config)
    with complete_folder(output) as folder:
        module = "timm_torch_resnet.py" if timm else "torch_resnet.py"
        shutil.copyfile(_HERE / module, folder / "resnet.py")
        (folder / f"{'model' if timm else 'weights'}.safetensors").write_bytes(data)
        (folder / CONFIG).write_text(json.dumps(config, indent=1))
    print(f"{output}: the network of {saved.where}")


def _timm_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what timm's data functions read of a model.

    timm does not know the crop of the training scripts, whose central 80% has the aspect ratio of
    the image; it gets the centre of the same height.
    """
    size = config["image_size"] or 224
    crop = config["preprocessing"]["crop"]
    return {
        "architecture": "resnetv2_mlimages",
        "input_size": [3, size, size],
        "num_classes": config["architecture"]["num_classes"],
        "mean": [0.5] * 3,  # of levels from 0 to 1
        "std": [0.5] * 3,
        "interpolation": "bilinear",
        "crop_pct": _CROP.get(crop, 0.875),
        "crop_mode": "squash" if crop == "whole" else "center",
        "first_conv": "stem.conv",
        "classifier": "head.fc",
    }
