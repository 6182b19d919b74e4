# SPDX-License-Identifier: BSD-3-Clause
"""The minimum that a JAX program does before its first step: imports, a state, a compiled step.

    python -m peers.least_start SPAWNED small|full CLASSES CACHE

The network and the step are those of `started_training`, without data, checkpoints and logs. Prints
the same JSON line.
"""

import json
import os
import sys
import time

SPAWNED = float(sys.argv[1])


def main() -> None:
    """Runs one step."""
    import jax

    from mlimages_jax.distributed import sharding
    from mlimages_jax.settings import build
    from mlimages_jax.settings.build import training_step
    from peers.ours_step import random_batch
    from peers.setting import load_config

    seconds = {"imports": time.time() - SPAWNED}
    network, classes, cache = sys.argv[2], int(sys.argv[3]), sys.argv[4]
    jax.config.update("jax_compilation_cache_dir", cache)
    if network == "small":
        changes = {"batch_size": 16, "group_size": 16, "loss.name": "sigmoid"}
        config = load_config("quickstart", changes)
    else:
        config = load_config("pretrain", {"batch_size": 4, "group_size": 4, "image_size": 64})
    start = time.time()
    training = training_step(config, sharding.make_mesh(), num_classes=classes)
    seconds["shapes"] = time.time() - start
    start = time.time()
    state = jax.block_until_ready(training.fresh_state(seed=0))
    seconds["state"] = time.time() - start
    start = time.time()
    (stage,) = build.stages(config)
    batch = random_batch(batch=config.batch_size, size=config.image_size, classes=classes)
    compiled = training.compile(stage, max_labels=batch["labels"].shape[1])
    seconds["compile"] = time.time() - start
    start = time.time()
    jax.block_until_ready(compiled(state, batch))
    seconds["first step"] = time.time() - start
    print(json.dumps({"total": time.time() - SPAWNED} | seconds), flush=True)
    os._exit(0)  # as started_training ends


if __name__ == "__main__":
    main()
