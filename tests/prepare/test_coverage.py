# SPDX-License-Identifier: BSD-3-Clause
"""What is there, what is missing and why: against plain Python, for both kinds of manifest."""

import collections
import contextlib
import random
import re

import fsspec
import numpy as np
import pytest
import tyro

from mlimages_jax.engines.local import InProcess
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.labels.lists import LabelListError
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.coverage import coverage
from mlimages_jax.prepare.covered_rows import NOT_TRIED, ClassCoverage, cover
from mlimages_jax.prepare.extract.command import extract
from mlimages_jax.prepare.manifest import Manifest, ManifestError
from tests.support import image_files, image_shards, imagenet_archives

URLS = [f"https://farm{i}.staticflickr.com/1/{i}_o.jpg" for i in range(6)]
CLASSES = Hierarchy(("n1", "n2", "n3"), ("animal", "dog, domestic dog", "rock"), [-1, 0, -1])


def ok(name: str, source: str = "list") -> Image:
    return Image(name=name, status=OK, time=1.0, file="a.jpg", source=source)


def failed(name: str, error: str, message: str = "what\thappened\nthere") -> Image:
    return Image(name=name, status=FAILED, time=1.0, error=error, message=message)


def write_manifest(path, *images):
    with Manifest(path) as manifest:
        manifest.put(images)
    return path


@pytest.fixture
def hand_worked(tmp_path):
    rows = ["0:1 1:0.9", "0:1", "0:0.5 2:-1", "2:1", "2:0", "1:1 0:1"]
    listed = tmp_path / "urls.txt"
    listed.write_text("".join(f"{url}\t{row}\n" for url, row in zip(URLS, rows, strict=True)))
    manifest = write_manifest(
        tmp_path / "manifest.sqlite",
        ok(URLS[0]),
        ok(URLS[1], "thumbnail"),
        failed(URLS[2], "not_found"),
        ok(URLS[3]),
        failed(URLS[4], "timeout"),
        ok("https://elsewhere/in_no_list.jpg"),
    )
    dictionary = tmp_path / "dictionary.txt"
    CLASSES.to_file(dictionary)
    return listed, manifest, dictionary


def test_hand_worked_report(hand_worked, tmp_path, capsys):
    listed, manifest, dictionary = hand_worked
    coverage(
        (listed,), manifests=(manifest,), dictionary=dictionary, output_dir=tmp_path / "report"
    )
    lines = [re.sub(" +", " ", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"{listed}: 6 rows",
        " present 3 50.00%",
        " from list 2 33.33%",
        " from thumbnail 1 16.67%",
        " failed 2 33.33%",
        " not_found 1 16.67%",
        " timeout 1 16.67%",
        " not tried 1 16.67%",
    ]
    assert (tmp_path / "report/missing.tsv").read_text() == (
        "name\terror\tmessage\tlist\n"
        f"{URLS[2]}\tnot_found\twhat happened there\turls.txt\n"
        f"{URLS[4]}\ttimeout\twhat happened there\turls.txt\n"
        f"{URLS[5]}\tnot_tried\t\turls.txt\n"
    )
    assert (tmp_path / "report/coverage_by_class.tsv").read_text() == (
        "class\twordnet_id\tname\tlisted\tthere\tshare\n"
        "0\tn1\tanimal\t4\t2\t0.5000\n"
        "1\tn2\tdog, domestic dog\t2\t1\t0.5000\n"
        "2\tn3\trock\t1\t1\t1.0000\n"
    )
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "coverage_by_class.tsv", "missing.tsv",
    ]  # fmt: skip


def test_a_class_without_images_has_no_share(hand_worked, tmp_path):
    listed, manifest, dictionary = hand_worked
    listed.write_text(f"{URLS[0]}\t1:1\n")
    coverage(
        (listed,), manifests=(manifest,), dictionary=dictionary, output_dir=tmp_path / "report"
    )
    lines = (tmp_path / "report/coverage_by_class.tsv").read_text().splitlines()
    assert lines[1:] == [
        "0\tn1\tanimal\t0\t0\t",
        "1\tn2\tdog, domestic dog\t1\t1\t1.0000",
        "2\tn3\trock\t0\t0\t",
    ]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_a_list_without_rows_is_an_error(hand_worked, tmp_path, content):
    _, manifest, _ = hand_worked
    empty = tmp_path / "empty.txt"
    empty.write_bytes(content)
    with pytest.raises(PrepareError, match=r"empty\.txt: there are no rows"):
        coverage((empty,), manifests=(manifest,))


def test_of_several_manifests_one_that_has_the_image_counts(tmp_path):
    shards = [
        write_manifest(tmp_path / "0.sqlite", ok("a", "list"), failed("b", "timeout")),
        write_manifest(tmp_path / "1.sqlite", failed("a", "gone"), ok("b", "mirror")),
        write_manifest(tmp_path / "2.sqlite", failed("c", "gone")),
    ]
    listed = tmp_path / "a.txt"
    listed.write_text("a\nb\nc\nd\n")
    for order in (shards, shards[::-1]):
        opened = [Manifest(path, readonly=True) for path in order]
        result = cover(listed, opened)
        assert result.sources == {"list": 1, "mirror": 1}
        assert result.errors == {"gone": 1, NOT_TRIED: 1}
        for manifest in opened:
            manifest.close()


def test_many_rows_against_plain_python(tmp_path):
    """More rows than are read or asked for at a time, names repeated, three manifests."""
    draw = random.Random(0)
    names = [f"n{draw.randrange(9)}/{i}_größe.JPEG" for i in range(6000)]
    rows = [
        (draw.choice(names), {draw.randrange(50): draw.choice([-1, 0, 0.5, 1]) for _ in range(4)})
        for _ in range(40_000)
    ]
    listed = tmp_path / "a.txt"
    listed.write_text(
        "".join(
            f"{name}\t" + "\t".join(f"{c}:{v}" for c, v in labels.items()) + "\n"
            for name, labels in rows
        )
    )
    known: dict[str, list[Image]] = collections.defaultdict(list)
    paths = []
    for number in range(3):
        images = [
            ok(name, draw.choice(["x", "y"])) if draw.random() < 0.4 else failed(name, "gone")
            for name in draw.sample(names, 2500)
        ]
        for image in images:
            known[image.name].append(image)
        paths.append(write_manifest(tmp_path / f"{number}.sqlite", *images))

    sources, errors = collections.Counter(), collections.Counter()
    listed_of, there_of = collections.Counter(), collections.Counter()
    for name, labels in rows:
        have = [image for image in known[name] if image.status == OK]
        if have:
            sources[have[0].source] += 1
        else:
            errors["gone" if known[name] else NOT_TRIED] += 1
        for class_, value in labels.items():
            listed_of[class_] += value > 0
            there_of[class_] += value > 0 and bool(have)

    manifests = [Manifest(path, readonly=True) for path in paths]
    classes = ClassCoverage(50)
    result = cover(listed, manifests, classes=classes)
    for manifest in manifests:
        manifest.close()
    assert (result.rows, result.sources, result.errors) == (40_000, sources, errors)
    np.testing.assert_array_equal(classes.listed, [listed_of[i] for i in range(50)])
    np.testing.assert_array_equal(classes.there, [there_of[i] for i in range(50)])


def test_after_extract_and_with_a_download_for_the_rest(tmp_path, capsys):
    colour = image_files.jpeg(image_files.quadrants())
    archive = imagenet_archives.write_nested(
        tmp_path / "fall11_whole.tar",
        {"n1": {"n1_1.JPEG": colour, "n1_2.JPEG": image_files.HTML}},
    )
    ids, urls = tmp_path / "ids.txt", tmp_path / "urls.txt"
    ids.write_text("n1/n1_1.JPEG\t0:1\nn1/n1_2.JPEG\t0:1\nn2/n2_1.JPEG\t1:1\n")
    urls.write_text(f"{URLS[0]}\t1:1\n")
    extract((archive,), lists=(ids,), output=tmp_path / "out")
    other = write_manifest(tmp_path / "urls.sqlite", ok(URLS[0]))
    capsys.readouterr()
    coverage((ids, urls), manifests=(tmp_path / "out/manifest.sqlite", other))
    one, two = capsys.readouterr().out.split(f"{urls}: ")
    lines = [line.split() for line in one.splitlines()]
    for line in (
        ["present", "1", "33.33%"], ["from", "fall11_whole.tar", "1", "33.33%"],
        ["failed", "2", "66.67%"], ["not_an_image", "1", "33.33%"], ["missing", "1", "33.33%"],
        ["not", "tried", "0", "0.00%"],
    ):  # fmt: skip
        assert line in lines
    assert ["present", "1", "100.00%"] in [line.split() for line in two.splitlines()]


def test_what_is_wrong_is_said(hand_worked, tmp_path):
    listed, manifest, dictionary = hand_worked
    bad = tmp_path / "bad.txt"
    bad.write_text(f"{URLS[0]}\t0:1\n{URLS[1]}\t3:1\n")
    report = tmp_path / "report"
    for lists, options, error, message in (
        ((), {}, PrepareError, "no label list"),
        ((listed,), {"dictionary": dictionary}, PrepareError, "--output-dir"),
        ((bad,), {"dictionary": dictionary, "output_dir": report}, LabelListError, r"bad\.txt:2"),
        ((listed,), {"dictionary": bad, "output_dir": report}, HierarchyError, r"bad\.txt:1"),
        ((listed,), {"manifests": (tmp_path / "no",)}, FileNotFoundError, "no such manifest"),
        ((listed,), {"manifests": (listed,)}, ManifestError, "not a manifest"),
        ((tmp_path / "no.txt",), {}, FileNotFoundError, r"no\.txt"),
        ((listed,), {"output_dir": listed / "report"}, OSError, "report"),
    ):
        with pytest.raises(error, match=message):
            coverage(lists, **({"manifests": (manifest,)} | options))
    assert not report.exists() or not list(report.iterdir())  # no half-written table


@pytest.fixture
def shards_and_files(tmp_path):
    """Two lists with repeated names and blank lines, a SQLite manifest and shards in a bucket."""
    draw = random.Random(1)
    names = [f"n{i % 7}/{i}_größe.JPEG" for i in range(900)]
    lists = [tmp_path / "train.txt", tmp_path / "val.txt"]
    for path, count in zip(lists, (6000, 500), strict=True):
        rows = (f"{draw.choice(names)}\t{draw.randrange(3)}:1\n" for _ in range(count))
        path.write_text("\n".join(rows))
    some = draw.sample(names, 500)
    file = write_manifest(tmp_path / "a.sqlite", *(failed(name, "gone") for name in some[:300]))
    place = f"memory://{tmp_path.name}"
    for i in range(3):
        images = [image_shards.ok(name) for name in some[i * 90 : i * 90 + 60]]
        images += [failed(name, "timeout") for name in some[i * 90 + 60 : i * 90 + 90]]
        image_shards.write(place, tmp_path, images, stem=f"a-{i}")
    CLASSES.to_file(tmp_path / "dictionary.txt")
    yield lists, (str(file), place)
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def report(lists, manifests, folder, capsys, **options):
    """What the command prints, without the note about placeholders, and what it writes."""
    coverage(
        lists, manifests=manifests, dictionary=lists[0].with_name("dictionary.txt"),
        output_dir=folder, **options,
    )  # fmt: skip
    return capsys.readouterr().out, {path.name: path.read_text() for path in folder.iterdir()}


class Backwards(InProcess):
    """An engine that begins with the last part."""

    def map_unordered(self, function, parts):
        return super().map_unordered(function, list(parts)[::-1])


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_report_what_one_process_reports(
    shards_and_files, tmp_path, capsys, monkeypatch, workers
):
    expected = report(*shards_and_files, tmp_path / "one", capsys)
    assert "from None" in expected[0] and expected[1]["missing.tsv"].count("\n") > 3000
    monkeypatch.setattr(EngineOptions, "open", lambda _: contextlib.nullcontext(Backwards()))
    engine = EngineOptions(workers=workers)
    assert report(*shards_and_files, tmp_path / "many", capsys, engine=engine) == expected


@pytest.mark.slow
def test_processes_report_what_one_process_reports(hand_worked, tmp_path, capsys):
    listed, manifest, _ = hand_worked
    found = [
        report((listed,), (manifest,), tmp_path / str(workers), capsys,
               engine=EngineOptions(workers=workers))
        for workers in (0, 2)
    ]  # fmt: skip
    assert found[0] == found[1] and found[0][1]["missing.tsv"].count("\n") == 4


def test_a_bad_row_is_named_by_workers_too(hand_worked, tmp_path, monkeypatch):
    listed, manifest, dictionary = hand_worked
    monkeypatch.setattr(EngineOptions, "open", lambda _: contextlib.nullcontext(Backwards()))
    listed.write_text(f"{URLS[0]}\t0:1\n{URLS[1]}\t3:1\n")
    with pytest.raises(LabelListError, match=r"urls\.txt:2"):
        coverage((listed,), manifests=(manifest,), dictionary=dictionary,
                 output_dir=tmp_path / "report", engine=EngineOptions(workers=2))  # fmt: skip
    assert not list((tmp_path / "report").iterdir())


def test_command_line(hand_worked, capsys):
    listed, manifest, _ = hand_worked
    tyro.cli(coverage, args=[str(listed), "--manifests", str(manifest)])
    assert "6 rows" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tyro.cli(coverage, args=["--help"])
    assert "missing.tsv" in capsys.readouterr().out
