# SPDX-License-Identifier: BSD-3-Clause
"""The notebooks run from a clean kernel, and what is committed is what was executed.

After a change of a notebook: `python notebooks/execute.py`.
"""

import copy
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient.exceptions import CellExecutionError

from notebooks.execute import FOLDER, LARGEST, NAMES, execute, images, read, source_digest
from tests.support import small_model
from tfds_builders import shapes

LOAD, FINETUNE, STATISTICS = NAMES


def _run(name, folder, **variables):
    """A fresh copy of a committed notebook, executed; paths are its MLIMAGES_... variables.

    Trainings end after a few steps: what they learn is in the committed outputs.
    """
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key != "XLA_FLAGS" and not key.startswith("MLIMAGES_")  # one device, as readers have
    }
    own = {f"MLIMAGES_{key}": str(value) for key, value in variables.items()}
    notebook = copy.deepcopy(read(FOLDER / name))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = _shortened(cell.source)
    folder.mkdir(parents=True, exist_ok=True)
    execute(notebook, folder=folder, environment={**inherited, **own})
    return notebook


def _shortened(source):
    return re.sub(r'"total_steps": \d+', '"total_steps": 60', source)


def _sources(notebook):
    return [(cell.cell_type, _shortened(cell.source)) for cell in notebook.cells]


def _text(notebook):
    """All that the cells have printed, and the text of their values."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(out.get("text", "") or str(out.get("data", {})) for out in outputs)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Holds what the notebooks make; the small model is trained once."""
    return tmp_path_factory.mktemp("work")


def test_all_notebooks_are_known():
    assert sorted(NAMES) == sorted(path.name for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_belong_to_the_committed_source(name):
    notebook = read(FOLDER / name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.executed == source_digest(notebook), "run python notebooks/execute.py"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(images(notebook)) >= 4
    assert not [out for cell in code for out in cell.outputs if out.get("name") == "stderr"]


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_are_small_and_tell_nothing_of_the_machine(name):
    text = (FOLDER / name).read_text()
    assert len(text) < LARGEST
    for place in ("/tmp", "/home", "/root", "/Users", "/work", "/var", "site-packages"):
        assert place not in text, place


def _first_cells():
    return [next(c for c in read(FOLDER / n).cells if c.cell_type == "code").source for n in NAMES]


def test_all_notebooks_begin_with_the_same_cell():
    assert len({*_first_cells()}) == 1


@pytest.mark.parametrize(
    ("missing", "source", "installed"),
    [
        (False, "", []),
        (True, "", ['pip install --quiet "{SOURCE}"']),
        (True, "a.whl", ['pip install --quiet "{SOURCE}"']),
        (True, ".", ['pip install --quiet --no-index --find-links "{SOURCE}" mlimages-jax']),
    ],
)
def test_the_first_cell_installs_what_is_missing(missing, source, installed, tmp_path, monkeypatch):
    lines = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: lines.append(f"{name} {line}"))
    if missing:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if source:
        monkeypatch.setenv("MLIMAGES_SOURCE", source)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    names = {"get_ipython": lambda: shell}
    exec(TransformerManager().transform_cell(_first_cells()[0]), names)
    assert lines == [*installed, "matplotlib inline"]
    assert names["SOURCE"] == (source or "git+REPOSITORY")  # as the README's git clone
    assert Path.cwd() == tmp_path  # up from the notebooks of a clone


def test_an_error_in_a_cell_is_an_error(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1 + 1"), nbformat.v4.new_code_cell("1 / 0")]
    )
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(notebook, folder=tmp_path, environment=os.environ)
    assert "executed" not in notebook.metadata


def test_the_kernel_is_this_interpreter_without_own_settings(tmp_path):
    code = "import os, sys; print(sys.executable, os.getcwd(), os.environ['IPYTHONDIR'])"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    execute(notebook, folder=tmp_path, environment=os.environ)
    executable, folder, settings = notebook.cells[0].outputs[0].text.split()
    assert executable == sys.executable
    assert Path(folder) == tmp_path.resolve()
    assert not Path(settings).exists()  # it was there while the kernel ran


@pytest.mark.slow
def test_statistics_of_a_built_set(tmp_path):
    folder = shapes.build(tmp_path / "data", num_train=12, num_val=3, size=32)
    notebook = _run(STATISTICS, tmp_path, DATASET=folder, WORK=tmp_path / "work")
    committed = read(FOLDER / STATISTICS)
    assert _sources(notebook) == _sources(committed)
    assert images(notebook) == images(committed)
    assert "train_000000.jpg" in _text(notebook)
    assert not (tmp_path / "work").exists()  # nothing is drawn where a set is given


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_without_any_path_everything_is_drawn_here(work, tmp_path, name):
    notebook = _run(name, tmp_path, WORK=work)
    committed = read(FOLDER / name)
    assert _sources(notebook) == _sources(committed)
    assert images(notebook) == images(committed)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_folders_are_finetuned_on(work, tmp_path):
    """With a model and images given, the notebook neither draws nor pretrains."""
    model = small_model.save(tmp_path / "model", small_model.imported("sigmoid"))
    drawn = shapes.draw(tmp_path / "drawn", num_train=24, num_val=12, size=48) / "images"
    for number, file in enumerate(sorted(drawn.iterdir())):
        split = "val" if file.name.startswith("val") else "train"
        place = tmp_path / "own" / split / ("even" if number % 2 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(file, place / file.name)
    (tmp_path / "own/new").mkdir()
    shutil.copyfile(next((tmp_path / "own/val/odd").iterdir()), tmp_path / "own/new/a.jpg")

    places = {"MODEL": model, "IMAGES": tmp_path / "own", "WORK": tmp_path / "work"}
    notebook = _run(FINETUNE, tmp_path / "start", **places)
    assert len(images(notebook)) == len(images(read(FOLDER / FINETUNE)))
    made = {path.name for path in (tmp_path / "work").iterdir()}
    assert made == {"data", "finetuned", "scratch"}
    assert (tmp_path / "work/finetuned/dictionary.txt").read_text().count("\n") == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_photographs_and_the_published_classes(tencent_dir, tmp_path):
    """A network for 11,166 classes on four photographs: the released one but for its size."""
    dictionary = tencent_dir / "dictionary_and_semantic_hierarchy.txt"
    tree = small_model.weights(small_model.SMALL.clone(num_classes=11_166))
    config = small_model.imported("weighted")
    model = small_model.save(tmp_path / "model", config, tree=tree, class_list="")
    places = {"MODEL": model, "DICTIONARY": dictionary, "IMAGES": tencent_dir / "images"}
    notebook = _run(LOAD, tmp_path / "start", WORK=tmp_path / "work", **places)
    assert "11,166 classes" in _text(notebook)
    assert images(notebook) == images(read(FOLDER / LOAD))
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_published_lists(tencent_dir, tmp_path):
    places = {
        "LISTS": ",".join(map(str, sorted((tencent_dir / "image_lists").iterdir()))),
        "DICTIONARY": tencent_dir / "dictionary_and_semantic_hierarchy.txt",
    }
    notebook = _run(STATISTICS, tmp_path / "start", WORK=tmp_path / "work", **places)
    assert len(images(notebook)) == len(images(read(FOLDER / STATISTICS))) - 1  # no records
    assert "11,166" in _text(notebook)
    assert not (tmp_path / "work").exists()
