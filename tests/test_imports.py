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
    "": {"labels.hierarchy", "pretrained"},
    "labels.list_rows": {"labels.image_names"},
    "labels.lists": {"labels.list_chunks", "labels.list_rows"},
    "labels.list_chunks": {"labels.image_names", "labels.list_rows"},
    "labels.rows": {"labels.lists"},
    "labels.names": {"labels.lists", "labels.rows"},
    "labels.label_keys": {"labels.lists"},
    "labels.corrections": {
        "labels.closure", "labels.hierarchy", "labels.label_keys", "labels.lists",
        "labels.rows",
    },
    "labels.release": {"labels.corrections", "labels.hierarchy"},
    "labels.class_map": {"labels.hierarchy", "labels.lists"},
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
    "data.orientation": {"data", "data.image_types", "data.jpeg_markers", "data.png_chunks"},
    "data.jpeg": {"data", "data.image_types", "data.jpeg_markers", "data.pillow_pixels"},
    "data.other_formats": {
        "data", "data.budget", "data.image_types", "data.other_headers", "data.pillow_pixels",
        "data.picture_header", "data.png_chunks", "data.tiff_header",
    },
    "data.decode": {
        "data", "data.budget", "data.image_types", "data.jpeg", "data.orientation",
        "data.other_formats", "data.picture_header", "data.transforms",
    },
    "top_k": {"average_precision"},
    "metrics": {"average_precision", "calibration", "top_k"},
    "single_label": {"calibration", "metrics"},
    "models.resnet": {"models.batch_norm"},
    "models.architecture": {"models.resnet"},
    "losses": {"models.batch_norm"},
    "data.mixing": {"models.batch_norm"},
    "state": {"losses", "sharding"},
    "steps": {"losses", "state", "data", "data.augment"},
    "checkpoint_fit": {"models.architecture"},
    "checkpoints": {"checkpoint_fit", "remote_files", "state"},
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
        "losses", "models.resnet", "optimizers", "phases", "sharding", "steps",
    },
    "predictions": {
        "data.decode", "data.sources", "data.views", "evaluate", "labels.hierarchy",
        "predictions_grid",
    },
    "training_evaluation": {
        "configure", "data.sources", "evaluate", "evaluation_report", "labels.hierarchy", "losses",
        "metrics_writer", "predictions", "state",
    },
    "data.given_pictures": {"data.decode", "data.transforms", "data.views"},
    "data.picture_source": {
