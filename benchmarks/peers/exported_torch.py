# SPDX-License-Identifier: BSD-3-Clause
"""Inference of a network exported by `mlimages convert to-torch`, in PyTorch on a CPU."""

import importlib.util
import time
from pathlib import Path
from typing import Any

import torch

from peers.serve import Values, arguments, serve


def load(folder: str) -> Any:
    """Loads the network with the module beside its weights."""
    spec = importlib.util.spec_from_file_location("resnet", Path(folder, "resnet.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(folder).to(memory_format=torch.channels_last)


def main() -> None:
    """Answers each request, a number of images, with the seconds that one batch of them took."""
    given = arguments()
    torch.set_num_threads(given["threads"])
    model = load(given["folder"])
    side = given["size"]

    def answer(request: str) -> Values:
        images = torch.rand(int(request), 3, side, side).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            begin = time.perf_counter()
            model(images)
            return {"seconds": time.perf_counter() - begin}

    serve({"version": torch.__version__}, answer)


if __name__ == "__main__":
    main()
