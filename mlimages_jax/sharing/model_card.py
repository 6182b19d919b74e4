# SPDX-License-Identifier: BSD-3-Clause
"""The card of a shared model (README.md): metadata for the Hub, then what the run says of it.

Every number is one that the training wrote. What it did not write is left out, or said to be
unknown.
"""

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.convert import description
from mlimages_jax.sharing import run_record
from mlimages_jax.sharing.run_record import Estimate, RunRecord

_SHOWN_CLASSES = 20
_WIDE = 0.2  # width of an interval that says little
_WORDS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mAP": "mAP over classes",
    "balanced_mAP": "mAP, half of the examples positive",
    "f1@5": "F1 of the five best tags",
    "hierarchical_f1": "F1 with ancestors",
    "calibration_error": "calibration error",
    "loss": "loss",
}


class Subject(NamedTuple):
    """The model that a card describes, and the facts about it.

    Attributes:
        repo: `user/name`.
        saved: The checkpoint, with settings that anybody may see.
        network: The network in words, such as "ResNet-101, stem 7 x 7 x 64".
        parameters: Number of its parameters.
        facts: Its `convert.description`.
        record: The metrics and commands that its workdir records.
        license: Identifier of the licence; "" if none was given.
    """

    repo: str
    saved: SavedModel
    network: str
    parameters: int
    facts: dict[str, Any]
    record: RunRecord
    license: str


def text(subject: Subject) -> str:
    """Returns the card in Markdown, with metadata in YAML."""
    parts = [
        _metadata(subject),
        f"# {subject.repo.partition('/')[2]}",
        _what_it_is(subject),
        _use(subject),
        _results(subject),
        _classes(subject),
        _data(subject),
        _training(subject),
        _limits(subject),
        _licence(subject),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(subject: Subject) -> str:
    several = subject.facts["calibration"]["loss"] != "softmax"
    tags = ["image-classification", "jax", "flax", "resnet", *(["multi-label"] if several else [])]
    values: dict[str, Any] = {
        "library_name": "mlimages-jax",
        "pipeline_tag": "image-classification",
        "tags": tags,
    }
    if subject.license:
        values = {"license": subject.license} | values
    results = _model_index(subject)
    if results:
        name = subject.repo.partition("/")[2]
        values["model-index"] = [{"name": name, "results": results}]
    # JSON is YAML, and quotes whatever a name of a class or a folder contains.
    lines = (f"{name}: {json.dumps(value)}" for name, value in values.items())
    return "\n".join(["---", *lines, "---"])


def _model_index(subject: Subject) -> list[dict[str, Any]]:
    found = run_record.overall(subject.record)
    metrics = [
        {"type": name, "name": _WORDS[name], "value": round(one.value, 4)}
        for name, one in found.items()
        if name in ("top1", "top5", "mAP")
    ]
    if not metrics:
        return []
    data = {"name": _data_name(subject), "type": "image-folder", "split": subject.record.evaluation}
    return [{"task": {"type": "image-classification"}, "dataset": data, "metrics": metrics}]


def _what_it_is(subject: Subject) -> str:
    facts = subject.facts
    classes = len(facts["classes"] or ()) or "an unknown number of"
    kind = "one class" if facts["calibration"]["loss"] == "softmax" else "any number of classes"
    return (
        f"{subject.network}: {subject.parameters:,} parameters, {classes} classes, images of "
        f"{facts['image_size']} x {facts['image_size']} pixels. An image has {kind}. Trained with "
        f"mlimages_jax; this is step {facts['step']:,}."
    )


def _use(subject: Subject) -> str:
    # Thresholds decide how many tags there are.
    limit = ", top_k=None" if subject.facts["thresholds"] else ""
    return (
        "## Use\n\n```python\n"
        "import mlimages_jax as mli\n\n"
        f'model = mli.load("hf://{subject.repo}")\n'
        f'for tag in model.tag("photo.jpg"{limit})[0]:\n'
        '    print(f"{tag.score:.2f}  {tag.name}")\n```\n\n'
        "Without that package: model.safetensors has the arrays, config.json what using them "
        f"takes.\n\n{description.in_words(subject.facts).strip()}"
    )


def _results(subject: Subject) -> str:
    found = run_record.overall(subject.record)
    if not found:
        return "## Results\n\nThis step was not evaluated, or its workdir does not say how."
    rows = [(_WORDS[name], _number(one), _interval(one)) for name, one in found.items()]
    images = subject.record.metrics.get("examples")
    counted = f", {images:,.0f} images" if images else ""
    parts = [
        f"## Results\n\nOn {_code(subject.record.evaluation)} of {_code(_data_name(subject))}"
        f"{counted}.",
        _table(("metric", "value", "95% interval"), rows),
        "Intervals of accuracies are Wilson's. That of mAP is the mean of the classes' own, from a "
        "bootstrap of the images: too wide, unless all classes err together.",
    ]
    groups = run_record.by_frequency(subject.record)
    if groups:
        parts += [
            "By positive images of a class in training:",
            _table(
                ("images", "classes", "mAP", "95% interval"),
                [(g.name, g.classes, _number(g.precision), _interval(g.precision)) for g in groups],
            ),
        ]
    return "\n\n".join(parts)


def _classes(subject: Subject) -> str:
    classes = subject.facts["classes"]
    if not classes:
        return "## Classes\n\nThe classes were not saved with the checkpoint."
    shown = "; ".join(_escaped(one["name"]) for one in classes[:_SHOWN_CLASSES])
    rest = len(classes) - _SHOWN_CLASSES
    more = f"; and {rest:,} more, in config.json" if rest > 0 else ""
    return f"## Classes\n\n{shown}{more}."


def _data(subject: Subject) -> str:
    config = subject.saved.config
    data = config.get("data") or {}
    if not data:
        return "## Data\n\nThe checkpoint does not say on what it was trained."
    digests = config.get("data_set") or {}
    parts = [
        f"Trained on {_code(data.get('train_split', 'train'))} of {_code(_data_name(subject))}"
    ]
    if digests:
        named = ", ".join(f"{_code(name)} {_code(value)}" for name, value in digests.items())
        parts.append(f"fingerprints {named}")
    if config.get("init_from"):
        parts.append(f"from the weights of {_code(config['init_from'])}")
    return f"## Data\n\n{'; '.join(parts)}."


def _training(subject: Subject) -> str:
    config = subject.saved.config
    optimizer = (config.get("optimizer") or {}).get("name")
    known = {
        "loss": subject.facts["calibration"]["loss"],
        "steps": subject.saved.step,
        "batch size": config.get("batch_size"),
        "optimizer": optimizer,
        "seed": config.get("seed"),
    }
    rows = [
        (name, _escaped(str(value))) for name, value in known.items() if value not in (None, "")
    ]
    parts = ["## Training", _table(("setting", "value"), rows)]
    if subject.record.commands:
        lines = "\n".join(run_record.public(command) for command in subject.record.commands)
        parts.append(f"```bash\n{lines}\n```")
    else:
        parts.append("The command was not recorded. All settings are in model.safetensors.")
    return "\n\n".join(parts)


def _limits(subject: Subject) -> str:
    rows = subject.record.classes
    lines = [
        "It knows the classes above only; an image of anything else still gets scores.",
        f"It was trained on images of {subject.facts['image_size']} pixels: other sizes and crops "
        "change its scores.",
    ]
    unseen = sum(not row.get("average_precision") for row in rows)
    wide = sum(_width(row) > _WIDE for row in rows if row.get("ap_low"))
    if unseen:
        lines.append(f"{unseen:,} of {len(rows):,} classes have no result, for lack of images.")
    if wide:
        lines.append(
            f"For {wide:,} classes the interval of the average precision is wider than {_WIDE}: "
            "too few images to tell."
        )
    if subject.facts["thresholds"] is None and subject.facts["calibration"]["loss"] != "softmax":
        lines.append("No thresholds were found for it: choose one on images of your own.")
    lines.append("Results are of one training, on one split, by the labels of that data set.")
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _licence(subject: Subject) -> str:
    if subject.license:
        return f"## Licence\n\n{_escaped(subject.license)}"
    return "## Licence\n\nNone was given by whoever shared this model: ask before you use it."


def _data_name(subject: Subject) -> str:
    data = subject.saved.config.get("data") or {}
    return str(data.get("folder") or "an unknown data set")


def _width(row: dict[str, str]) -> float:
    return float(row["ap_high"]) - float(row["ap_low"])


def _number(one: Estimate) -> str:
    return "" if math.isnan(one.value) else f"{one.value:.4f}"


def _interval(one: Estimate) -> str:
    return "" if math.isnan(one.low) else f"{one.low:.4f} to {one.high:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _code(name: object) -> str:
    return f"`{str(name).replace('`', '')}`"


def _escaped(text: str) -> str:
    """A name as one line of plain text in Markdown, whatever it contains."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("[", "\\[")
