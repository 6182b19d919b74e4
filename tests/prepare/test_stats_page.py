# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.stats.command import stats
from mlimages_jax.report import page
from tests.support import record_files
from tests.support.five_classes import CLASS_LIST


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    """Bundling Vega takes seconds; the tests of reports in a browser use it."""
    monkeypatch.setattr(page, "_library", lambda: "")


def data_of(file):
    text = file.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0]), text


def test_the_page_of_lists(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text(CLASS_LIST.replace("poodle", "<b>poodle"))
    (tmp_path / "train.txt").write_text("a.jpg\t2:0.9\t4:1\nb.jpg\t1:1\nc.jpg\t3:-1\t4:0\n")
    file = tmp_path / "page.html"
    stats((tmp_path / "train.txt",), dictionary=tmp_path / "classes.txt", html=file)
    assert "the page" in capsys.readouterr().out
    data, text = data_of(file)
    columns = {column["name"]: column["values"] for column in data["tree"]["columns"]}
    assert columns["images"] == [0, 1, 1, 0, 1] and columns["unknown"] == [0, 0, 0, 1, 0]
    ranks, tags = data["charts"]
    assert ranks["datasets"]["ranks"][-1] == {"rank": 3, "images": 1}
    assert [row["value"] for row in tags["datasets"]["rows"]] == [1, 1, 1]
    assert "&lt;b&gt;poodle" in text and "<b>poodle" not in text
    assert "mlimages data stats --dataset" in text and "<title>train.txt</title>" in text


def test_the_page_of_a_data_set_has_images(tmp_path):
    folder = record_files.write_set(tmp_path / "set", [3, 2])
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata |= {"short_side": None, "skipped": {}, "labels": "closed"}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    stats(dataset=folder, html=tmp_path / "page.html")
    data, text = data_of(tmp_path / "page.html")
    assert text.count('src="data:image/jpeg;base64,') == 5
    assert data["tree"]["images"] == {str(i): [i] for i in range(5)}
    assert "class 3" in text and "train" in text


def test_a_page_without_a_place_is_refused_before_anything_is_counted(tmp_path):
    with pytest.raises(PrepareError, match="there is no folder"):
        stats((tmp_path / "none.txt",), dictionary=tmp_path, html=tmp_path / "x/page.html")
