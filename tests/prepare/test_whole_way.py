# SPDX-License-Identifier: BSD-3-Clause
"""docs/get_ml_images.md on a small scale: from lists of URLs and ids to a verified data set."""

import json

import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
from mlimages_jax.prepare.__main__ import main
from tests.support import image_files, imagenet_archives
from tfds_builders.ml_images import __main__ as builder

DICTIONARY = """\
category_index\tcategory_id\tindex_of_parent_category\tcategory name
0\tn00000001\t-1\tanimal
1\tn00000002\t0\tdog, domestic dog
2\tn00000003\t1\tpoodle
3\tn00000004\t-1\tvehicle
"""
IDS = ["n00000003/n00000003_1.JPEG   2:1", "n00000003/n00000003_2.JPEG   2:0.9  3:1",
       "n00000004/n00000004_9.JPEG 3:1"]  # fmt: skip
URLS = ["https://farm1.staticflickr.com/2034/1_a_o.jpg\t2:0.8\t3:1",
        "https://c4.staticflickr.com/404/2_b_o.jpg\t1:1",
        "https://c4.staticflickr.com/9/3_c_o.jpg\t0:1"]  # fmt: skip


def prepare(*arguments):
    main(list(map(str, arguments)))


@pytest.fixture
def published(tmp_path):
    """What a person begins with: class list, lists, an archive."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "dictionary.txt").write_text(DICTIONARY)
    (folder / "train_ids.txt").write_text("\n".join(IDS) + "\n")
    (folder / "train_urls.txt").write_text("\n".join(URLS) + "\n")
    images = {
        f"n00000003_{number}.JPEG": image_files.jpeg(image_files.noise(32 * number, 96))
        for number in (1, 2, 3)
    }
    imagenet_archives.write_nested(folder / "fall11_whole.tar", {"n00000003": images})
    return folder


def test_from_lists_to_a_verified_set(published, image_server, tmp_path, capsys):
    folder = tmp_path / "ml_images"
    prepare("download", published / "train_urls.txt", "--output", folder, "--address-map",
            f"*.staticflickr.com={image_server.url}")  # fmt: skip
    prepare("extract", published / "fall11_whole.tar", "--lists", published / "train_ids.txt",
            "--output", folder)  # fmt: skip
    lists = [published / "train_ids.txt", published / "train_urls.txt"]
    dictionary = published / "dictionary.txt"

    capsys.readouterr()
    prepare("coverage", *lists, "--manifests", folder / "manifest.sqlite", "--dictionary",
            dictionary, "--output-dir", tmp_path / "coverage")  # fmt: skip
    printed = capsys.readouterr().out
    assert "missing" in printed and "http_404" in printed
    missing = (tmp_path / "coverage/missing.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in missing[1:]] == [IDS[2].split()[0], URLS[1].split()[0]]

    prepare("labels", *lists, "--manifests", folder / "manifest.sqlite", "--dictionary", dictionary,
            "--close", "--output", folder / "train_image_list.txt")  # fmt: skip
    (folder / "dictionary.txt").write_bytes(dictionary.read_bytes())
    builder.main(["--manual_dir", str(folder), "--data_dir", str(tmp_path / "data")])
    built = tmp_path / "data/ml_images/released_320/1.0.0"
    records = DataSet.open(built).records("train")
    found = [parse_record(records[i]) for i in range(len(records))]
    assert [dict(zip(r.labels.tolist(), r.confidences.tolist(), strict=True)) for r in found] == [
        {0: 1, 1: 1, 2: 1},
        {0: pytest.approx(0.9), 1: pytest.approx(0.9), 2: pytest.approx(0.9), 3: 1},
        {0: pytest.approx(0.8), 1: pytest.approx(0.8), 2: pytest.approx(0.8), 3: 1},
        {0: 1},
    ]
    for record in found:
        assert record.jpeg == (folder / "images" / record.name).read_bytes()

    capsys.readouterr()
    prepare("check", built, "--list", folder / "train_image_list.txt", "--splits", "train")
    assert "4 records" in capsys.readouterr().out
    prepare("stats", "--dataset", built, "--output-dir", tmp_path / "statistics")
    numbers = json.loads((tmp_path / "statistics/statistics.json").read_text())
    assert numbers["images"]["total"] == 4
    assert numbers["closure"]["rows_not_closed"] == 0


def test_image_shards_of_both_commands_make_a_set(published, image_server, tmp_path, capsys):
    """The commands of docs/full_set.md."""
    web, archive, lists = (str(tmp_path / name) for name in ("web", "imagenet", "lists"))
    given = [published / "train_urls.txt", published / "train_ids.txt"]
    prepare("download", given[0], "--output", web, "--shards", 2, "--address-map",
            f"*.staticflickr.com={image_server.url}")  # fmt: skip
    prepare("extract", published / "fall11_whole.tar", "--lists", given[1], "--output", archive,
            "--shards", 1)  # fmt: skip
    prepare("labels", *given, "--manifests", web, archive, "--output-dir", lists)
    (tmp_path / "lists/dictionary.txt").write_text(DICTIONARY)
    words = [f"--manual-dir={lists}", f"--data-dir={tmp_path / 'data'}", "--name=set"]
    with pytest.raises(SystemExit, match="2 of 4 images are not in the image shards of"):
        builder.main([*words, "--max-skipped=0.1", "--image-shards", web])
    capsys.readouterr()
    builder.main([*words, "--image-shards", web, archive])
    prepare("check", capsys.readouterr().out.strip())
    assert "4 records" in capsys.readouterr().out


def test_the_published_lists_and_images(tencent_dir, image_server, tmp_path):
    folder = tmp_path / "ml_images"
    urls, dictionary = (
        tencent_dir / "train_urls_tiny.txt",
        tencent_dir / "dictionary_and_semantic_hierarchy.txt",
    )
    prepare("download", urls, "--output", folder, "--address-map",
            f"*.staticflickr.com={image_server.url}", "--short-side", 32)  # fmt: skip
    prepare("labels", urls, "--manifests", folder / "manifest.sqlite", "--dictionary", dictionary,
            "--close", "--output", folder / "val_image_list.txt")  # fmt: skip
    (folder / "dictionary.txt").write_bytes(dictionary.read_bytes())
    builder.main(["--manual_dir", str(folder), "--data_dir", str(tmp_path / "data")])
    prepare("check", tmp_path / "data/ml_images/released_320/1.0.0")
