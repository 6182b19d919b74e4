# SPDX-License-Identifier: BSD-3-Clause
"""Sections of the page about single images: predictions, calibration, suspect labels."""

from mlimages_jax.evaluation.examples_file import Example
from mlimages_jax.report import charts
from mlimages_jax.report.class_table import ClassTable
from mlimages_jax.report.content import Chart, Image, Section, Sheet, Table, Tag, data_url
from mlimages_jax.report.run_files import SUSPECTS, Run
from mlimages_jax.report.tables import number

_MOST_SUSPECTS = 100  # rows of a table
_MOST_BYTES = 3_000_000  # of a sheet


def examples(run: Run) -> Section:
    """Returns validation images with hits, misses and false alarms."""
    key, title = "images", "Validation images"
    if run.classes is None or not run.examples:
        missing = (
            "`mlimages train` writes examples.json at its end, when it runs in one process: "
            "earlier versions did not."
        )
        return Section(key=key, title=title, missing=missing)
    shown = [_image(one, run.classes) for one in run.examples]
    text = (
        "Tags of the model (✓ hit, ✗ false alarm, with their probability) and what it missed (?)."
    )
    return Section(key=key, title=title, text=text, images=shown)


def calibration(run: Run) -> Section:
    """Returns how often a stated probability is right."""
    rows = [
        (probability, accuracy, int(count))
        for row in run.calibration
        if (count := number(row.get("predictions")))
        and (probability := number(row.get("mean_probability"))) is not None
        and (accuracy := number(row.get("accuracy"))) is not None
    ]
    key, title = "calibration", "Calibration"
    if not rows:
        missing = (
            "`mlimages train` at its end and `mlimages evaluate` write calibration.tsv: earlier "
            "versions did not."
        )
        return Section(key=key, title=title, missing=missing)
    words = "Below the dashed diagonal the model is overconfident, above it underconfident."
    if (error := run.values.get("calibration_error")) is not None:
        words += f" The calibration error is {error:.4f}."
    names = ("mean probability", "accuracy", "predictions")
    chart = Chart("Accuracy by probability", charts.calibration(rows), words,
                  Table("Accuracy by probability", names, rows))  # fmt: skip
    return Section(key=key, title=title, text=words, charts=[chart])


def suspects(run: Run) -> Section:
    """Returns labels that are probably wrong or missing."""
    key, title = "suspects", "Suspect labels"
    tables, sheets = [], []
    for kind, name in SUSPECTS.items():
        rows = [
            [row.get("image"), row.get("name"), number(row.get("probability")), row.get("instead")]
            for row in run.suspects[kind][:_MOST_SUSPECTS]
        ]
        if not rows:
            continue
        columns = ("image", "class", "probability", "instead")
        tables.append(Table(f"Probably {kind}, the strongest suspicion first", columns, rows))
        sheet = run.folder / f"{name}.png"
        if sheet.exists() and len(data := sheet.read_bytes()) <= _MOST_BYTES:
            description = f"Images whose labels are probably {kind}; the table has the same rows"
            sheets.append(Sheet(data_url(data, "png"), description))
    missing = "" if tables else "`mlimages suspects --data=DATA --workdir=S` finds them."
    return Section(key=key, title=title, tables=tables, sheets=sheets, missing=missing)


def _image(one: Example, table: ClassTable) -> Image:
    tags = [
        Tag("hit" if right else "false alarm", table.names[i], score)
        for i, score, right in one.predicted
    ]
    found = {i for i, _, right in one.predicted if right}
    tags += [Tag("miss", table.names[i]) for i in one.true if i not in found]
    above = [i for true in one.true for i in (true, *table.ancestors(true))]
    return Image(one.name, data_url(one.jpeg, "jpeg"), tags, sorted(set(above)))
