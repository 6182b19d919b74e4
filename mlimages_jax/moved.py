# SPDX-License-Identifier: BSD-3-Clause
"""Import paths of version 0.1: they work in this release, with a DeprecationWarning.

The warning names the new path. An old path becomes a module that looks names up in the new ones.
"""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_ROOT = "mlimages_jax"
# Below mlimages_jax: old modules, and the modules that have their names now.
MODULES: dict[str, tuple[str, ...]] = {
    "average_precision": ("metrics.average_precision",),
    "calibration": ("metrics.calibration",),
    "checkpoint_fit": ("checkpoints.compatibility",),
    "classify_pictures": ("inference.tag_task",),
    "complete_file": ("files.atomic",),
    "configure": (
        "settings.build",
        "settings.judge",
        "settings.restart",
    ),
    "data.augment": ("step.augment",),
    "data.decode": ("data.images.decode",),
    "data.jpeg": ("data.images.jpeg",),
    "data.local_shards": ("data.local_copies",),
    "data.mixing": ("step.mixing",),
    "data.picture_header": (
        "data.images.header",
        "data.images.image_types",
    ),
    "data.picture_source": (
        "inference.image_source",
        "data.image_folders",
    ),
    "data.rand_augment": ("data.images.rand_augment",),
    "data.reassessed": ("data.real_labels",),
    "data.sources": ("data.dataset", "data.records"),
    "data.transforms": ("data.images.transforms",),
    "data.views": ("data.images.views",),
    "evaluate": ("evaluation.evaluate", "distributed.sharding"),
    "evaluate_checkpoints": ("evaluation.evaluate_task",),
    "evaluation_report": ("evaluation.report",),
    "export_features": ("features.export.export_task",),
    "feature_files": (
        "features.export.feature_files",
        "features.export.feature_formats",
        "features.export.feature_writer",
        "features.export.manifest",
    ),
    "feature_formats": ("features.export.feature_formats", "features.export.parted_array"),
    "features.bounds": ("features.duplicates.bounds",),
    "features.duplicate_search": ("features.duplicates.search",),
    "features.exported": ("features.export.exported",),
    "features.groups": ("features.duplicates.groups",),
    "features.knn": ("features.evaluate.knn",),
    "features.labelled": ("features.evaluate.labelled",),
    "features.linear": ("features.evaluate.linear",),
    "features.near_pairs": ("features.duplicates.near_pairs",),
    "features.nearest": ("features.evaluate.nearest",),
    "features.probe": ("features.evaluate.probe",),
    "features.scorecard": ("features.evaluate.scorecard",),
    "features.sets": ("features.evaluate.sets",),
    "input_wait": ("monitoring.input_wait",),
    "losses": ("step.losses",),
    "metrics_writer": ("monitoring.metrics_writer",),
    "network_outputs": ("inference.network_outputs",),
    "notebook_figures": ("inference.figures",),
    "optimizers": ("step.optimizers",),
    "phases": ("step.stages",),
    "predict_pictures": ("inference.batch_predict",),
    "predictions": ("evaluation.prediction_grid",),
    "predictions_grid": ("evaluation.prediction_grid",),
    "preemption": ("distributed.preemption",),
    "prepare.progress": ("monitoring.progress_bar",),
    "pretrained": ("inference.pretrained",),
    "progress": ("monitoring.training_log",),
    "published": ("evaluation.published",),
    "quickstart": ("training.quickstart",),
    "remote_files": ("files.remote",),
    "saved_model": ("checkpoints.saved_model",),
    "sharding": ("distributed.sharding",),
    "single_label": ("metrics.single_label",),
    "state": ("step.state",),
    "steps": ("step.steps",),
    "tag_files": ("inference.tag_files",),
    "tagging": ("inference.tagging",),
    "top_k": ("metrics.top_k",),
    "train": ("training.train", "training.start"),
    "training_evaluation": ("training.evaluations", "training.final_report"),
    "training_step": ("step.training_step",),
    "weights_file": ("checkpoints.safetensors",),
}
# Below mlimages_jax: modules that still exist but lost some names, and where these are now. Listed
# one by one, so that `from package import submodule` does not import every new module.
NAMES: dict[str, dict[str, str]] = {
    "checkpoints": {
        "CheckpointWriteError": "checkpoints.manager",
        "Checkpoints": "checkpoints.manager",
        "HEAD": "checkpoints.manager",
        "classes_of": "checkpoints.step_folders",
        "config_of": "checkpoints.manager",
        "find": "checkpoints.step_folders",
        "latest_step": "checkpoints.step_folders",
        "load": "checkpoints.manager",
        "load_weights": "checkpoints.manager",
        "resolve": "checkpoints.step_folders",
        "restore_weights": "checkpoints.manager",
    },
    "metrics": {
        "MultiLabelMetrics": "metrics.multi_label",
        "check_batch": "metrics.multi_label",
        "judge": "metrics.multi_label",
    },
    "distributed": {
        "AGAIN": "distributed.processes",
        "CRASH_EXIT_CODE": "distributed.processes",
        "HEARTBEAT_SECONDS": "distributed.processes",
        "LOST_EXIT_CODE": "distributed.processes",
        "PeerError": "distributed.processes",
        "STEPS_AHEAD": "distributed.processes",
        "StopRequest": "distributed.processes",
        "log_layout": "distributed.processes",
        "meet": "distributed.collectives",
        "together": "distributed.processes",
    },
    "features.duplicates": {
        "duplicates": "features.duplicates.command",
        "summary": "features.duplicates.command",
        "write_table": "features.duplicates.command",
    },
    "goodput": {
        "CATEGORIES": "monitoring.goodput",
        "EXPLAINED": "monitoring.goodput",
        "Goodput": "monitoring.goodput",
        "Line": "monitoring.goodput",
        "read": "monitoring.goodput",
        "summary": "monitoring.goodput",
        "table": "monitoring.goodput",
    },
}

# Renamed words within names; for settings see `settings.renamed`.
WORDS = {
    "Picture": "Image",
    "picture": "image",
    "PICTURE": "IMAGE",
    "learning_rate_factors": "lr_multipliers",
    "moved_averages": "moved_ema",
}
# Renamed names, by old module; two old modules may share a name.
RENAMED = {
    "data.reassessed": {"ReassessedLabels": "RealLabels"},
    "data.views": {"PROTOCOLS": "VIEW_NAMES", "Protocol": "ViewName"},
    "distributed": {"meet": "barrier", "together": "initialize"},
    "evaluate_checkpoints": {"Subject": "SavedModel"},
    "export_features": {"Network": "SavedModel"},
    "features.exported": {"name_shares": "name_fractions"},
    "features.labelled": {"Labels": "SparseLabels"},
    "features.near_pairs": {"Rows": "FeatureRows"},
    "features.scorecard": {"Judging": "LabelRules"},
    "phases": {"Phase": "Stage", "make_phases": "make_stages"},
    "predict_pictures": {"Rows": "PredictedRows"},
    "sharding": {"cut": "sharded_tree", "whole": "replicated_tree"},
}


def renamed_keywords(**names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Makes a function accept keywords by their old names, with a DeprecationWarning.

    Args:
        names: Current names by old ones.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got {new} and {old}, its old name")
                warnings.warn(
                    f"{function.__name__}({old}=...) is now {new}=...; the old keyword will be "
                    "removed in version 0.3",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_method(new: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Makes a method with an old name warn and give the new name.

    Args:
        new: The present name of the method.
    """

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(method)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            warnings.warn(
                f"{method.__name__} is now {new}; the old name will be removed in version 0.3",
                DeprecationWarning,
                stacklevel=2,
            )
            return method(*args, **kwargs)

        return call

    return decorate


def install() -> None:
    """Makes `import` find the old paths, after everything that exists."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # At the end, so that a present module always wins over an old name.
        sys.meta_path.append(_Finder())


def getattr_of(package: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a module in `NAMES`, called for names that it lacks."""
    places = NAMES[package.removeprefix(f"{_ROOT}.")]

    def look_up(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        new = f"{_ROOT}.{places[name]}"
        _warn(f"{package}.{name}", new, stacklevel=3)
        return getattr(importlib.import_module(new), present_name(name, module=package))

    return look_up


class _Finder(MetaPathFinder, Loader):
    """Finds and creates the modules of `MODULES`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, name = fullname.partition(".")
        if root != _ROOT or name not in MODULES:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name, f"Moved to {', '.join(_places(spec.name))}.")

    def exec_module(self, module: ModuleType) -> None:
        places = _places(module.__name__)
        _warn(module.__name__, " and ".join(places), stacklevel=3)
        found = [importlib.import_module(place) for place in places]
        # Looked up at every access (PEP 562), not copied, so that assigned names are seen here too.
        module.__dict__["__getattr__"] = _lookup(module.__name__, found)
        module.__dict__["__dir__"] = lambda: sorted({name for one in found for name in dir(one)})


def present_name(name: str, *, module: str) -> str:
    """Returns the current form of a name of version 0.1.

    Args:
        name: The old name.
        module: The old module, with or without the root package.
    """
    renamed = RENAMED.get(module.removeprefix(f"{_ROOT}."), {})
    if name in renamed:
        return renamed[name]
    for word, new in WORDS.items():
        name = name.replace(word, new)
    return name


def _lookup(old: str, found: Sequence[ModuleType]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of an old module, which searches the new ones."""

    def look_up(name: str) -> Any:
        new = present_name(name, module=old)
        # An old module may have been divided among several new ones.
        for module in found:
            if hasattr(module, new):
                return getattr(module, new)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return look_up


def _places(old: str) -> list[str]:
    return [f"{_ROOT}.{place}" for place in MODULES[old.removeprefix(f"{_ROOT}.")]]


def _warn(old: str, new: str, *, stacklevel: int) -> None:
    warnings.warn(
        f"{old} is now in {new}; the old path will be removed in version 0.3",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
