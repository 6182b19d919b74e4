# SPDX-License-Identifier: BSD-3-Clause
"""Maps the original's variable names to ours and back.

train.py and finetune.py of the release also save:

    global_step    number of updates, int64 scalar
    NAME/Momentum  velocity of SGD, for every trained variable NAME
    Variable       train.py: number of consecutive steps in which a class was present, float32 [C]
    Variable_1     train.py: the same for absent classes
"""

import re

GLOBAL_STEP = "global_step"
# train.py gave its counters no names, so TensorFlow numbered them.
POSITIVE_COUNTS = "Variable"
NEGATIVE_COUNTS = "Variable_1"
MOMENTUM = "/Momentum"

_LEAVES = {
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}
_LAYERS = {
    "conv1_b1_bn": "shortcut_norm",
    "conv1_b1": "shortcut_conv",
    "conv1_b2_bn": "norm1",
    "conv1_b2": "conv1",
    "conv2_b2_bn": "norm2",
    "conv2_b2": "conv2",
    "conv3_b2_bn": "norm3",
    "conv3_b2": "conv3",
}
_MODULES = {"init/init_conv": "stem", "global_pool/bn": "final_norm", "logits": "head"}
_BLOCK = re.compile(r"stages_(\d+)_block_(\d+)/(\w+)")
_OUR_BLOCK = re.compile(r"stage(\d+)_block(\d+)/(\w+)")
_THEIR_LEAVES = {ours: theirs for theirs, ours in _LEAVES.items()}
_THEIR_LAYERS = {ours: theirs for theirs, ours in _LAYERS.items()}
_SCOPES = {ours: theirs for theirs, ours in _MODULES.items()}


def tensorflow_name(name: str) -> str:
    """Returns the original's name of one of the network's arrays.

    "params/stage0_block1/conv1/kernel" -> "stages_0_block_1/conv1_b2/conv2d/kernel".

    Args:
        name: A name from `layout.variables`.
    """
    collection, rest = name.split("/", 1)
    module, leaf = rest.rsplit("/", 1)
    if block := _OUR_BLOCK.fullmatch(module):
        scope = f"stages_{block[1]}_block_{block[2]}/{_THEIR_LAYERS[block[3]]}"
    else:
        scope = _SCOPES[module]
    if module == "head":
        return f"{scope}/dense/{leaf}"
    if leaf == "kernel":
        return f"{scope}/conv2d/{leaf}"
    return f"{scope}/batch_normalization/{_THEIR_LEAVES[collection, leaf]}"


def our_name(name: str) -> str | None:
    """Returns our name of a variable of the original's network; None for any other variable.

    "stages_0_block_1/conv1_b2/conv2d/kernel" -> "params/stage0_block1/conv1/kernel".
    """
    scope, _, leaf = name.rpartition("/")
    scope, _, layer = scope.rpartition("/")
    if block := _BLOCK.fullmatch(scope):
        module = f"stage{block[1]}_block{block[2]}/{_LAYERS.get(block[3])}"
    else:
        module = str(_MODULES.get(scope))
    collection, ours = ("params", leaf) if layer == "dense" else _LEAVES.get(leaf, ("params", leaf))
    candidate = f"{collection}/{module}/{ours}"
    # Translated back and compared, as names such as ".../Momentum" fit the patterns halfway.
    try:
        return candidate if tensorflow_name(candidate) == name else None
    except KeyError:  # a scope, layer or leaf that the network does not have
        return None
