# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the loss of a training."""

from dataclasses import dataclass

from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.rules import BELOW_ONE, Choice, Flag, Number, Whole

LOSSES = ("weighted", "sigmoid", "asymmetric", "focal", "two_way", "softmax")
# Losses with a sum over labels in which those of present classes can have a weight of their own.
WEIGHABLE = ("sigmoid", "asymmetric", "focal")
CONFIDENCE = Number(0.0, 1.0, above=True)
_FRACTION = Number(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The weighted sigmoid cross-entropy of ML-Images."""

    variant: str = setting(
        Choice(("released", "paper")),
        "The loss of the released script, or the formula of the paper.",
        default="released",
    )
    group_size: int = setting(
        Whole(0, zero="that of config.group_size"), "Images that share class counts.", default=0
    )
    positive_weight: float = setting(
        Number(0.0, above=True),
        "Weight of the positive term (train.py: pos_weight; the paper's eta).",
        default=12.0,
    )
    threshold: float = setting(
        CONFIDENCE,
        "Minimum confidence with which a label makes its class present (train.sh: mask_thres).",
        default=0.7,
    )
    negative_selection: float = setting(
        _FRACTION,
        "Fraction of absent classes that count in a step (train.sh: neg_select); released only.",
        default=0.1,
    )


@dataclass(frozen=True, kw_only=True)
class Asymmetric:
    """The asymmetric loss (Ridnik et al., 2021, section 4)."""

    gamma_positive: float = setting(
        Number(0.0), "Focusing exponent of present classes.", default=0.0
    )
    gamma_negative: float = setting(
        Number(0.0), "Focusing exponent of absent classes.", default=4.0
    )
    clip: float = setting(
        BELOW_ONE, "Subtracted from the probability of absent classes.", default=0.05
    )


@dataclass(frozen=True, kw_only=True)
class Focal:
    """The focal loss (Lin et al., 2017, section 3), for each class separately."""

    gamma: float = setting(Number(0.0), "Focusing: how little easy classes count.", default=2.0)
    alpha: float = setting(
        Number(0.0, 1.0, above=True, below=True),
        "Weight of present classes; absent ones have 1 - alpha.",
        default=0.25,
    )


@dataclass(frozen=True, kw_only=True)
class TwoWay:
    """The two-way loss (Kobayashi, 2023): over classes of an image and images of a class.

    Its scores order classes and images, but are not probabilities.
    """

    group_size: int = setting(
        Whole(0, zero="that of config.group_size"),
        "Images that are compared with each other.",
        default=0,
    )
    positive_temperature: float = setting(
        Number(0.0, above=True),
        "How many of the lowest scores of present classes count (the paper's T).",
        default=4.0,
    )
    negative_temperature: float = setting(
        Number(0.0, above=True),
        "How many of the highest scores of absent classes count.",
        default=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """Cross-entropy for one class per image."""

    label_smoothing: float = setting(
        BELOW_ONE, "Weight spread over all classes (Szegedy et al., 2016, section 7).", default=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss: softmax for one class per image, the others for several labels."""

    name: str = setting(Choice(LOSSES), "Name of the loss; its section has the arguments.")
    prior_bias: bool = setting(
        Flag(),
        "Initialises the bias of a new classifier from the frequencies of the classes, so that the "
        "first steps need not learn how rare they are.",
        default=False,
    )
    positive_weight: str = setting(
        Choice(("", "frequency")),
        "frequency: weights present classes by absent / present images of the class (King and "
        "Zeng, 2001), between 1 / limit and limit; for sigmoid, asymmetric and focal. Empty: no "
        "weights.",
        default="",
    )
    positive_weight_limit: float = setting(
        Number(1.0), "Limit of the weights from frequencies.", default=20.0
    )
    weighted: Weighted = Weighted()
    asymmetric: Asymmetric = Asymmetric()
    focal: Focal = Focal()
    two_way: TwoWay = TwoWay()
    softmax: Softmax = Softmax()
