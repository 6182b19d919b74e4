# SPDX-License-Identifier: BSD-3-Clause
import collections
import json

import jax
import pytest

from mlimages_jax.distributed import sharding
from mlimages_jax.features.__main__ import main
from mlimages_jax.features.export.export_task import export
from tests.support import small_model
from tests.support.small_run import load_config


@pytest.fixture
def one_device(monkeypatch):
    mesh = sharding.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda devices=None: mesh)


@pytest.mark.usefixtures("one_device")
def test_from_a_list_of_images_to_numbers_and_duplicates(tmp_path, stamps_dir, capsys):
    """Real images, one of them missing, some listed twice, by a network that knows nothing."""
    lines = (stamps_dir / "train_image_list.txt").read_text().splitlines()
    lines = [line for line in lines if line.startswith(("clothes_hats", "animals_fish"))]
    names = [line.split("\t")[0] for line in lines]
    repeated = {name for name, count in collections.Counter(names).items() if count > 1}
    assert 2 < len(repeated) < len(lines) / 2
    (tmp_path / "list.txt").write_text("\n".join(["missing.jpg\t0:1", *lines]))
    config = load_config(
        "export_features",
        checkpoint=str(small_model.save(tmp_path / "run", {})),
        input=str(tmp_path / "list.txt"),
        images_root=str(stamps_dir / "images"),
        **{"view.size": 32, "batch_size": 16, "rows_per_part": 32, "num_threads": 2},
    )
    folder = tmp_path / "features"
    export(config, folder)

    output = tmp_path / "numbers.json"
    main(["knn", "--train", str(folder), "--k", "3", "--output", str(output)])
    values = json.loads(output.read_text())
    assert values["task"] == "multi"
    assert values["train"]["unreadable"] == 1
    assert values["train"]["images"] + values["test"]["images"] == len(lines)
    assert values["train"]["checkpoint"]["folder"].startswith(str(tmp_path / "run"))
    assert 0 < values["results"][0]["mAP"] <= 1

    main(["probe", "--train", str(folder), "--c", "0.1", "--output", str(output)])
    assert 0 < json.loads(output.read_text())["results"][0]["mAP"] <= 1

    table = tmp_path / "duplicates.tsv"
    main(["duplicates", str(folder), "--output", str(table), "--threshold", "0.99999"])
    groups = collections.defaultdict(set)
    for line in table.read_text().splitlines()[1:]:
        group, name, similarity, _, row = line.split("\t")
        groups[group].add(name)
        assert float(similarity) > 0.9999
        assert name == ["missing.jpg", *names][int(row)]
    assert repeated <= set().union(*groups.values())
    assert all(len(group) == 1 for group in groups.values())
