# SPDX-License-Identifier: BSD-3-Clause
"""Who may import whom, read from the source; and what importing the package costs."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mlimages_jax"

# module -> the modules of ours it may import; what is not listed may import nothing of ours.
ALLOWED = {
    "": {"escaping", "labels.hierarchy", "pretrained"},
    "labels.list_rows": {"labels.image_names"},
    "labels.hierarchy": {"labels", "labels.same_names", "labels.word_list"},
    "labels.lists": {"labels.list_chunks", "labels.list_rows"},
    "labels.list_chunks": {"labels.image_names", "labels.list_rows"},
    "labels.rows": {"labels.lists"},
    "labels.names": {"labels.lists", "labels.rows", "labels.same_names"},
    "labels.label_keys": {"labels.lists"},
    "labels.corrections": {
        "labels.closure", "labels.hierarchy", "labels.label_keys", "labels.lists",
        "labels.rows",
    },
    "labels.release": {"labels.corrections", "labels.hierarchy"},
    "labels.class_map": {"labels.hierarchy", "labels.lists", "labels.same_names"},
    "labels.closure": {"labels.hierarchy", "labels.label_keys", "labels.lists", "labels.rows"},
    "labels.merging": {"labels.label_keys", "labels.lists", "labels.names", "labels.rows"},
    "labels.cooccurrence": {
        "labels.hierarchy", "labels.label_keys", "labels.lists", "labels.rows",
    },
    "labels.statistics": {"labels.hierarchy", "labels.lists", "labels.names", "labels.rows"},
    "data.archives": {"data.tar_headers", "safe_paths"},
    "data.tar_headers": {"safe_paths"},
    "data.image_folders": {
        "data.picture_header", "labels.image_names", "labels.same_names",
    },
    "data.jpeg_markers": {"data.image_types"},
    "data.tiff_header": {"data.image_types", "data.jpeg_markers"},
    "data.other_headers": {"data.image_types", "data.tiff_header"},
    "data.picture_header": {
        "data.image_types", "data.jpeg_markers", "data.other_headers", "data.refused_formats",
    },
    "data.budget": {"data.image_types"},
    "data.png_chunks": {"data.image_types"},
    "data.pillow_pixels": {"data.image_types"},
    "data.bmp_pixels": {"data.image_types", "data.pillow_pixels"},
    "data.jpeg_encoder": {"data.budget", "data.image_types"},
    "data.orientation": {"data", "data.image_types", "data.jpeg_markers", "data.png_chunks"},
    "data.jpeg": {
        "data", "data.image_types", "data.jpeg_markers", "data.orientation", "data.pillow_pixels",
    },
    "data.other_formats": {
        "data", "data.bmp_pixels", "data.budget", "data.image_types", "data.other_headers",
        "data.picture_header", "data.pillow_pixels", "data.png_chunks", "data.tiff_header",
    },
    "data.decode": {
        "data", "data.budget", "data.image_types", "data.jpeg", "data.jpeg_encoder",
        "data.orientation", "data.picture_header", "data.shrinking", "data.transforms",
        "data.whole_images",
    },
    "data.whole_images": {
        "data", "data.budget", "data.image_types", "data.jpeg", "data.orientation",
        "data.other_formats",
    },
    "top_k": {"average_precision"},
    "metrics": {"average_precision", "calibration", "top_k"},
    "single_label": {"calibration", "metrics"},
    "models.resnet": {"models.batch_norm", "models.depths"},
    "settings": {"settings.judge", "settings.resolve"},
    "settings.config_file": {
        "models.depths", "settings.flat", "settings.judge", "settings.rules",
    },
    "settings.judge": {
        "settings.flat", "settings.relations", "settings.rules", "settings.tables",
    },
    "settings.relations": {"settings.rules"},
    "settings.resolve": {"settings.flat", "settings.judge"},
    "settings.tables": {"settings.rules"},
    "models.architecture": {"models.depths", "models.resnet"},
    "losses": {"models.batch_norm"},
    "data.mixing": {"models.batch_norm"},
    "state": {"losses", "sharding"},
    "steps": {"losses", "state", "data", "data.augment"},
    "checkpoint_fit": {"models.architecture"},
    "array_digests": {"checkpoint_fit"},
    "saved_step": {"array_digests", "checkpoint_fit", "distributed"},
    "checkpoint_folder": {"distributed", "remote_files", "saved_step"},
    "checkpoints": {
        "array_digests", "checkpoint_fit", "checkpoint_folder", "distributed", "saved_step",
        "state",
    },
    "data.sources": {"data", "data.local_shards", "data.streams"},
    "data.reassessed": {"data.sources"},
    "data.views": {"data", "data.decode", "data.transforms"},
    "data.pipeline": {
        "data", "data.decode", "data.jpeg", "data.order", "data.sources", "data.views",
        "remote_files", "sharding",
    },
    "agreement": {"distributed"},
    "command_line": {"paths"},
    "data.fingerprint": {"data.sources"},
    "distributed": {"exit_codes", "preemption", "sharding"},
    "evaluate": {
        "data", "data.pipeline", "data.sources", "data.views", "losses", "metrics", "preemption",
        "sharding", "single_label", "steps",
    },
    "evaluation_report": {"calibration", "labels.hierarchy", "metrics", "single_label"},
    "remote_files": {"complete_file"},
    "goodput": {"paths", "process_identity", "remote_files"},
    "object_lock": {"preemption", "process_identity"},
    "out_of_memory": {"configure", "exit_codes", "plan", "plan.chips", "plan.estimate"},
    "paths": {"remote_files"},
    "workdir_lock": {
        "distributed", "object_lock", "paths", "process_identity", "remote_files",
    },
    "metrics_writer": {"remote_files"},
    "progress": {"distributed", "metrics_writer"},
    "configure": {
        "calibration", "data", "data.augment", "data.mixing", "data.rand_augment", "data.views",
        "losses", "models.depths", "models.resnet", "optimizers", "phases", "settings", "steps",
    },
    "predictions": {
        "data.decode", "data.sources", "data.views", "evaluate", "labels.hierarchy",
        "predictions_grid",
    },
    "training_evaluation": {
        "configure", "data.sources", "evaluate", "evaluation_report", "labels.hierarchy", "losses",
        "metrics_writer", "predictions", "state",
    },
    "data.given_pictures": {
        "data", "data.decode", "data.image_folders", "data.image_types", "data.pillow_pixels",
        "data.transforms", "data.views",
    },
    "data.cut_pictures": {"data", "data.decode", "data.given_pictures"},
    "data.picture_source": {
        "data.fingerprint", "data.image_folders", "data.picture_header", "data.sources",
        "labels.image_names", "labels.list_rows",
    },
    "feature_files": {"feature_formats", "complete_file"},
    "feature_formats": {"complete_file"},
    "features.__main__": {
        "command_line", "feature_files", "features", "features.duplicates", "features.knn",
        "features.probe",
    },
    "features.bounds": {"features.exported"},
    "features.buckets": {"features.near_pairs"},
    "features.duplicate_search": {
        "features.bounds", "features.buckets", "features.exported", "features.groups",
        "features.near_pairs", "prepare.progress",
    },
    "features.duplicates": {
        "features", "features.duplicate_search", "features.exported", "features.results",
        "complete_file",
    },
    "features.exported": {"feature_files", "feature_formats", "features"},
    "features.knn": {
        "features", "features.labelled", "features.nearest", "features.results",
        "features.scorecard", "features.sets", "prepare.progress",
    },
    "features.labelled": {
        "features", "features.exported", "labels.list_rows", "labels.same_names",
    },
    "features.linear": {"features"},
    "features.nearest": {"features.exported"},
    "features.probe": {
        "features", "features.exported", "features.linear", "features.results",
        "features.scorecard", "features.sets", "prepare.progress",
    },
    "features.results": {"features", "features.exported", "complete_file"},
    "features.scorecard": {"features.labelled", "metrics", "single_label"},
    "features.sets": {
        "features", "features.exported", "features.labelled", "features.results",
        "features.scorecard",
    },
    "notebook_figures": {"labels.hierarchy", "tagging"},
    "network_outputs": {"data.augment", "models.resnet"},
    "predict_pictures": {
        "data.decode", "data.given_pictures", "data.picture_source", "data.pipeline",
        "data.views", "evaluate", "sharding",
    },
    "pretrained": {
        "calibration", "configure", "data.cut_pictures", "data.decode", "data.given_pictures",
        "data.views", "image_rows", "labels.hierarchy", "models.architecture", "models.resnet",
        "network_outputs", "saved_model", "tagging",
    },
    "saved_model": {
        "checkpoints", "configure", "data.views", "labels.hierarchy", "losses", "weights_file",
    },
    "weights_file": {"array_digests", "complete_file"},
    "image_rows": {"tagging"},
    "open_network": {
        "checkpoint_folder", "configure", "models", "models.architecture", "saved_step",
    },
    "tag_files": {"complete_file", "tagging"},
    "tagging": {"average_precision", "labels.hierarchy", "top_k"},
    "quickstart": {"paths", "train", "workdir_lock"},
    "plan.chips": {"plan"},
    "plan.layers": {"models.resnet"},
    "plan.compiled": {"sharding"},
    "plan.estimate": {
        "configure", "models.resnet", "phases", "plan", "plan.chips", "plan.compiled",
        "plan.layers", "sharding", "state", "training_step",
    },
    "plan.report": {"plan.estimate"},
    "plan.check": {"plan", "plan.compiled", "plan.estimate", "sharding", "training_step"},
    "training_step": {
        "configure", "data.pipeline", "losses", "phases", "sharding", "state", "steps",
    },
    "plan.__main__": {
        "data.sources", "paths", "plan", "plan.check", "plan.chips", "plan.estimate", "plan.report",
        "settings", "settings.config_file",
    },
    "convert.layout": {"convert", "models.resnet"},
    "convert.tensorflow_checkpoint": {
        "complete_file", "convert", "convert.layout", "convert.sorted_table",
    },
    "convert.weights": {
        "checkpoints", "convert", "convert.layout", "losses", "saved_model", "state",
    },
    "convert.description": {"convert.weights", "data.views", "labels.hierarchy", "saved_model"},
    "convert.from_tensorflow": {
        "convert", "convert.layout", "convert.tensorflow_checkpoint", "convert.tensorflow_names",
        "convert.weights", "labels.hierarchy", "losses", "models.resnet",
    },
    "convert.to_tensorflow": {
        "checkpoints", "convert", "convert.tensorflow_checkpoint", "convert.tensorflow_names",
        "convert.weights",
    },
    "convert.safetensors_file": {
        "convert", "convert.description", "convert.layout", "convert.weights", "weights_file",
    },
    "convert.to_torch": {"convert", "convert.description", "convert.weights"},
    "convert.to_stablehlo": {
        "convert", "convert.description", "convert.weights", "models.architecture",
    },
    "convert.__main__": {
        "command_line", "convert", "convert.from_tensorflow", "convert.safetensors_file",
        "convert.to_stablehlo", "convert.to_tensorflow", "convert.to_torch", "labels.hierarchy",
        "saved_step",
    },
    "main": {
        "agreement", "classify_pictures", "devices", "distributed", "evaluate_checkpoints",
        "exit_codes", "export_features", "out_of_memory", "paths", "preemption", "quickstart",
        "settings", "settings.config_file", "train",
    },
}  # fmt: skip
# Whoever reads or writes text may use these, which use nothing of ours.
EVERYWHERE = {"escaping", "text_files"}
# Tasks may use all of them.
ANYTHING = {"train", "evaluate_checkpoints", "classify_pictures", "export_features"}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(path: Path) -> set[str]:
    """Dotted names that a file imports, each submodule by its own name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                file = ROOT / Path(*full.split("."))
                is_module = file.with_suffix(".py").exists() or (file / "__init__.py").exists()
                found.add(full if is_module else node.module)
    return found


MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[_name(path) or PACKAGE for path in MODULES])
def test_modules_import_only_what_the_design_allows(path):
    ours = {
        name.removeprefix(PACKAGE).removeprefix(".")
        for name in _imports(path)
        if name.split(".")[0] == PACKAGE
    }
    if _name(path) not in ANYTHING and not _name(path).startswith("prepare"):
        assert ours - EVERYWHERE <= ALLOWED.get(_name(path), set())


def _preparation() -> dict[str, set[str]]:
    """Modules of `prepare`, and the modules of ours that they import."""
    return {
        _name(path): {
            name.removeprefix(f"{PACKAGE}.")
            for name in _imports(path)
            if name.startswith(f"{PACKAGE}.")
        }
        for path in MODULES
        if _name(path).startswith("prepare")
    }


def test_preparation_uses_labels_and_files_only():
    for module, imported in _preparation().items():
        others = {name for name in imported if not name.startswith(("prepare", "labels."))}
        allowed = {
            "command_line", "complete_file", "data.archives", "data.decode", "data.image_folders",
            "data.sources", "escaping", "safe_paths", "text_files",
        }  # fmt: skip
        assert others <= allowed, module


def test_commands_of_the_preparation_know_nothing_of_each_other():
    """A folder of `prepare` is one command; what several need lies beside the folders."""
    for module, imported in _preparation().items():
        if module != "prepare.__main__":
            own = module.split(".")[1:-1]
            folders = [name.split(".")[1:-1] for name in imported if name.startswith("prepare.")]
            assert all(folder in ([], own) for folder in folders), (module, imported)


def test_preparation_has_no_cycles():
    graph = _preparation()
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    "module",
    [
        "labels",
        "data.decode",
        "data.transforms",
        "data.archives",
        "data.rand_augment",
        "data.reassessed",
        "metrics",
        "single_label",
        "calibration",
        "published",
        "escaping",
        "text_files",
        "preemption",
        "goodput",
        "exit_codes",
        "paths",
        "process_identity",
        "object_lock",
        "data.fingerprint",
        "remote_files",
        "prepare",
        "settings",
    ],
)
def test_host_modules_know_no_jax(module):
    files = [
        path for path in MODULES if _name(path) == module or _name(path).startswith(f"{module}.")
    ]
    assert files
    for path in files:
        assert not any(name.split(".")[0] in ("jax", "flax") for name in _imports(path)), path


def test_only_checkpoints_imports_orbax():
    users = [_name(path) for path in MODULES if any("orbax" in name for name in _imports(path))]
    assert users == ["checkpoints", "saved_step"]  # writing and reading


def test_builders_use_labels_and_decode_only():
    for path in (ROOT / "tfds_builders").rglob("*.py"):
        for name in _imports(path):
            assert name.split(".")[0] not in ("jax", "flax"), path
            if name.split(".")[0] == PACKAGE:
                used = (
                    "labels", "data.decode", "data.image_folders", "data.jpeg", "data.archives",
                    "escaping", "paths", "text_files",
                )  # fmt: skip
                assert name.startswith(tuple(f"{PACKAGE}.{module}" for module in used)), path


def test_configs_import_nothing_of_ours():
    for path in (ROOT / "configs").glob("*.py"):
        assert _imports(path) <= {"ml_collections"}, path


def test_importing_the_package_loads_neither_jax_nor_tensorflow():
    code = (
        "import sys, mlimages_jax; "
        "print([name for name in ('jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'grain') "
        "if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_training_runs_without_tensorflow_installed():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'tensorflow': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import mlimages_jax.main, mlimages_jax.training.train, mlimages_jax.training.quickstart"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
