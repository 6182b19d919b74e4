# SPDX-License-Identifier: BSD-3-Clause
"""Checks that all processes of a job were started with the same configuration, code and data.

The values are compared through the coordination service of process 0. Comparing them on the
devices would not work, because a collective program needs the same shapes on all processes.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlimages_jax.distributed import collectives

# Settings that may differ between hosts: paths to read from, numbers of threads and workers.
OF_A_HOST = (
    "data.folder", "data.copy_to", "input", "input.num_threads", "input.num_workers",
    "input.prefetch", "images_root", "num_threads", "num_workers",
)  # fmt: skip
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_LISTED = 20  # differing values listed in an error message


class DifferentProcessesError(RuntimeError):
    """The processes of a job were started with different values, code or data."""


def check_processes(settings: Mapping[str, Any], *, workdir: str) -> None:
    """Checks that settings, workdir, code and library versions are the same everywhere.

    Args:
        settings: Values by name.
        workdir: Workdir of this process.

    Raises:
        DifferentProcessesError: They differ; raised on all processes, with the values of each.
    """
    if not collectives.is_one_of_many():
        return
    mine = {f"--config.{name}": v for name, v in settings.items() if name not in OF_A_HOST}
    mine |= {"--workdir": workdir, "code of mlimages_jax": _code(), "Python": _python()}
    mine |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    check_same(mine)


def check_same(mine: Mapping[str, Any]) -> None:
    """Checks that JSON values are the same on all processes; all of them must call it.

    Raises:
        DifferentProcessesError: They differ; raised on all processes, with the values of each.
    """
    text = json.dumps(mine, sort_keys=True)
    digests = collectives.exchanged(hashlib.sha256(text.encode()).hexdigest())
    if len(set(digests)) == 1:  # the usual case, for which no values are sent
        return
    # Reversed, so that the first process with a digest is the one that stays in the dict.
    first = {digest: number for number, digest in reversed(list(enumerate(digests)))}
    # Only one process per distinct digest sends its values, as there may be thousands of processes.
    number = collectives.process_number()
    texts = collectives.exchanged(text if first[digests[number]] == number else "")
    said = [json.loads(texts[first[digest]]) for digest in digests]
    raise DifferentProcessesError(
        "the processes were started differently; start all of them with the same values, code and "
        "data:\n" + "\n".join(_differences(said))
    )


def _differences(said: list[dict[str, Any]]) -> list[str]:
    """Returns one line for every value that is not the same on all processes."""
    lines = []
    for name in sorted(set().union(*said)):
        holders: dict[str, list[int]] = {}
        for number, values in enumerate(said):
            holders.setdefault(repr(values.get(name)), []).append(number)
        if len(holders) > 1:
            lines.append(f"  {name}: " + ", ".join(f"{v} on {_who(n)}" for v, n in holders.items()))
    left = len(lines) - _LISTED
    return lines[:_LISTED] + ([f"  and {left} more"] if left > 0 else [])


def _who(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"process {numbers[0]}"
    shown = ", ".join(map(str, numbers[:4]))
    return f"processes {shown}" + (f" and {len(numbers) - 4} others" if len(numbers) > 4 else "")


def _code() -> str:
    """Returns a digest of this package's source files."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        # Names and separators are hashed too, or moving a line from one file to the next would go
        # unnoticed.
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _python() -> str:
    # Without the patch number, which the machines of a cluster often do not share.
    return ".".join(platform.python_version_tuple()[:2])
