# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's training step: channels_last, SGD with momentum, BCE; compiled and bfloat16 on a GPU.

The network is timm's resnetv2_101 if timm is installed, otherwise ours in PyTorch.
"""

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from peers import torch_resnet
from peers.serve import Values, arguments, serve


def make_model(name: str, *, depth: int, num_classes: int) -> nn.Module:
    """Returns timm's network, or ours."""
    if name == "ours":
        return torch_resnet.ResNet(depth, num_classes)
    import timm  # an optional peer

    return timm.create_model(f"resnetv2_{depth}", num_classes=num_classes)


class Trainer:
    """A model, its optimizer and one batch, which every step trains on."""

    def __init__(self, options: Values):
        self.device = torch.device("cuda" if options["on_gpu"] else "cpu")
        self.dtype = getattr(torch, options["dtype"])
        torch.manual_seed(0)
        model = make_model(options["model"], depth=options["depth"], num_classes=options["classes"])
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4
        )
        shape = (options["batch"], 3, options["size"], options["size"])
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.images = images.to(memory_format=torch.channels_last)
        targets = torch.zeros(options["batch"], options["classes"], device=self.device)
        self.targets = targets.scatter_(1, torch.arange(9, device=self.device)[None], 1.0)

    def loss(self) -> Tensor:
        """Returns the loss summed over classes and averaged over the batch."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.model(self.images.float() * (2 / 255) - 1)
        total = F.binary_cross_entropy_with_logits(logits.float(), self.targets, reduction="sum")
        return total / len(self.images)

    def step(self, loss: Any) -> None:
        """Performs one update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss().backward()
        self.optimizer.step()

    def wait(self) -> None:
        """Waits until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forward_macs(self) -> float:
        """Returns the multiply-accumulates of the network for one image."""
        image = self.images[:1].float()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.model.eval()(image)
        self.model.train()
        return counter.get_total_flops() / 2


def main() -> None:
    """Serves the time of `steps` steps."""
    options = arguments()
    torch.backends.cudnn.benchmark = True
    trainer = Trainer(options)
    macs = trainer.forward_macs()
    loss = torch.compile(trainer.loss) if options["on_gpu"] else trainer.loss

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            trainer.step(loss)
        trainer.wait()
        return time.perf_counter() - start

    def answer(_: str) -> Values:
        elapsed = seconds(options["steps"])
        if not options["on_gpu"]:
            return {"seconds": elapsed, "memory": None}
        torch.cuda.empty_cache()  # the peers share the device
        return {"seconds": elapsed, "memory": torch.cuda.max_memory_allocated()}

    first, second = seconds(1), seconds(1)
    about = {
        "version": f"torch {torch.__version__}",
        "parameters": sum(leaf.numel() for leaf in trainer.model.parameters()),
        "macs": macs,
        "compile_seconds": max(first - second, 0),
    }
    serve(about, answer)


if __name__ == "__main__":
    main()
