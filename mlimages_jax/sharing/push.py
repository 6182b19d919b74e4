# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages push`."""

import dataclasses
import json
import shutil
from pathlib import Path

from etils import epath
from tyro.conf import Positional

from mlimages_jax.checkpoints import hub, saved_model
from mlimages_jax.checkpoints.safetensors import WeightsFile, write
from mlimages_jax.convert import layout
from mlimages_jax.convert.safetensors_file import contents
from mlimages_jax.convert.weights import nested
from mlimages_jax.files.remote import is_remote, write_text
from mlimages_jax.models import architecture
from mlimages_jax.sharing import SharingError, model_card, run_record, upload
from mlimages_jax.sharing.model_card import Subject

CARD = "README.md"
ONNX = "model.onnx"
_FOLDER = "hub"  # inside a workdir
_FIGURES = ("per_class.tsv", "reliability.png")


def push(
    workdir: Positional[str],
    repo: Positional[str],
    /,
    *,
    license: str = "",  # noqa: A002  # the Hub's word
    private: bool = False,
    card: Path | None = None,
    message: str = "",
    output: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Share a trained model on the Hugging Face Hub, with a card made from its run.

        mlimages push workdirs/quickstart user/name --license=cc-by-4.0 --dry-run
        mlimages push workdirs/quickstart user/name --license=cc-by-4.0

    The first command only writes the files: model.safetensors, config.json and README.md, the card.
    The second sends them, with model.onnx if the workdir has one; it needs the extra hub and
    `hf auth login`. Paths of this machine are cut to their last name. After an interruption the
    same command resumes. `mlimages_jax.load("hf://user/name")` reads the model.

    Args:
        workdir: a workdir, its checkpoints folder, or one of its steps; of several the best if the
            training recorded it, else the latest.
        repo: user/name, or organization/name.
        license: identifier of the licence, such as apache-2.0; without it the card says that none
            was given.
        private: create the repository for yourself only; one that exists stays as it is.
        card: file to use as the card instead.
        message: message of the commit; default: the step.
        output: folder for the files; default: hub in the workdir.
        dry_run: write the files and stop.
    """
    address = hub.parse(repo if hub.is_address(repo) else f"{hub.SCHEME}{repo}")
    saved, content = contents(workdir)
    source = saved_model.thresholds_place(saved.where).parent
    folder = _folder(source, output)
    files = write_files(
        folder, saved, content, repo=address.repo, license=license, card=card, source=source
    )
    if not license and card is None:
        print("no licence was given (--license), and the card says so: others may not use it")
    for path in files.values():
        print(f"{path}: {path.stat().st_size:,} bytes")
    if dry_run:
        print("nothing was sent: run the same command without --dry-run")
        return
    message = message or f"Step {saved.step:,}, by mlimages push"
    pinned = upload.upload(address.repo, files, private=private, message=message)
    print(f'mlimages_jax.load("{pinned}") is this version, "{hub.SCHEME}{pinned.repo}" the newest')


def write_files(
    folder: Path,
    saved: saved_model.SavedModel,
    content: WeightsFile,
    *,
    repo: str,
    license: str,  # noqa: A002  # the Hub's word
    card: Path | None,
    source: epath.Path,
) -> dict[str, Path]:
    """Writes what is shared.

    Args:
        folder: Folder of the files; created.
        saved: The checkpoint.
        content: What a file of it holds.
        repo: `user/name`.
        license: Identifier of the licence; "" if none was given.
        card: Text to use as the card; None to make it.
        source: The workdir.

    Returns:
        The files by their name in the repository.
    """
    content = content._replace(config=run_record.public(content.config))
    record = run_record.read(source, step=saved.step)
    facts = content.usage
    shape = layout.check(content.arrays, where=str(saved.where))
    network = architecture.network_of(nested(content.arrays)["params"])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / hub.FILE, content)
    about = {"library_name": "mlimages-jax", "architecture": shape._asdict(), **facts}
    write_text(folder / "config.json", json.dumps(about, indent=1) + "\n")
    subject = Subject(
        repo=repo,
        saved=dataclasses.replace(saved, config=content.config),
        network=architecture.described(network),
        parameters=sum(a.size for name, a in content.arrays.items() if name.startswith("params/")),
        facts=facts,
        record=record,
        license=license,
    )
    text = card.read_text(encoding="utf-8") if card else model_card.text(subject)
    write_text(folder / CARD, text)
    names = [hub.FILE, "config.json", CARD]
    for name in _FIGURES if record.classes else ():
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
            names.append(name)
    if (source / ONNX).exists():
        if (source / ONNX).stat().mtime < saved.where.stat().mtime:
            print(f"{source / ONNX} is older than {saved.where}: is it of this step?")
        _copy(source / ONNX, folder / ONNX)
        names.append(ONNX)
    return {name: folder / name for name in names}


def _folder(source: epath.Path, output: Path | None) -> Path:
    if output is None and is_remote(source):
        raise SharingError(
            f"{source} is not on this machine: give --output, a folder for the files"
        )
    return output or Path(source) / _FOLDER


def _copy(source: epath.Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written)
