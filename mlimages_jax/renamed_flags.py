# SPDX-License-Identifier: BSD-3-Clause
"""Renamed flags: the old names are accepted in this release, with a note for each.

Of removed flags, a message says what to use now.
"""

import sys
from collections.abc import Sequence

# By command: old and new names, without dashes. Empty it with the next release.
_LABELS = {"unlisted": "missing-labels"}
_SHARE = {"val-share": "val-fraction"}
_THREADS = {"num-workers": "threads"}
RENAMED = {
    "mlimages_jax.prepare.imports.door:import_any": _LABELS | _SHARE,
    "mlimages_jax.prepare.imports.table:import_table": _LABELS,
    "mlimages_jax.prepare.imports.open_images:import_open_images": _LABELS,
    "mlimages_jax.features.duplicates.command:duplicates": {
        "approximate": "index=ivf",
        "buckets": "lists",
        "memberships": "probes",
    },
    "mlimages_jax.features.evaluate.knn:knn": _LABELS,
    "mlimages_jax.features.evaluate.probe:probe": _LABELS,
    "tfds_builders.image_folder.command:build_image_folder": _SHARE | _THREADS,
    "tfds_builders.imagenet.command:build_imagenet": _SHARE | _THREADS,
    "tfds_builders.ml_images.command:build_ml_images": _THREADS,
    "mlimages_jax.prepare.co_occurrence.command:co_occurrence": {"min-pictures": "min-images"},
    "mlimages_jax.plan.__main__:plan": {"pictures": "images", "picture-kb": "image-kb"},
}
# By folder of commands: removed flags, and what to do instead.
REMOVED = {
    "tfds_builders": {
        "beam": "builds use no Apache Beam any more. --workers=8 builds with eight processes of "
        "this machine, --engine=ray on a Ray cluster (pip install -e '.[ray]' in the clone); "
        "finished files of an interrupted build are reused"
    }
}


def replaced(words: Sequence[str], *, command: str) -> list[str]:
    """Returns command-line words with current names of flags; notes replacements on stderr.

    Args:
        words: The words that follow the name of the command.
        command: Its function, as "module:function".

    Raises:
        SystemExit: A flag was removed; the message says what to use now.
    """
    removed = REMOVED.get(command.partition(".")[0], {})
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag[2:] in removed:
            sys.exit(f"error: {flag}: {removed[flag[2:]]}")
    return [_replaced(word, RENAMED.get(command, {})) for word in words]


def _replaced(word: str, new_names: dict[str, str]) -> str:
    flag, equals, value = word.partition("=")
    new = new_names.get(flag.lstrip("-").replace("_", "-"))
    if new is None or not flag.startswith("-"):
        return word
    print(
        f"note: {flag} is now called --{new}; the old name will be removed in 0.3", file=sys.stderr
    )
    return f"--{new}{equals}{value}"
