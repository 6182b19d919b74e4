# SPDX-License-Identifier: BSD-3-Clause
import subprocess
import sys

import numpy as np
import pytest

from mlimages_jax.features.__main__ import main
from tests.features.feature_sets import write_export


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_list_of_commands_says_one_line_of_each(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code in (0, 2)
    text = capsys.readouterr()
    text = text.out + text.err
    for command in ("knn", "probe", "duplicates"):
        assert command in text
    if words:
        assert "Evaluate exported features" in text
        assert "--temperature" not in text


@pytest.mark.parametrize("command", ["knn", "probe", "duplicates"])
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"mlimages features {command}" in text
    assert "--output" in text


@pytest.mark.slow
def test_what_a_person_can_mend_is_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "mlimages_jax.features", "duplicates", str(tmp_path),
         "--output", str(tmp_path / "d.tsv")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path} contains no exported features")
    assert len(result.stderr.splitlines()) == 1


def test_an_unfinished_export_is_one_line(tmp_path):
    path = write_export(tmp_path, np.eye(3)) / "features.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(SystemExit, match=r"error: the export in .* is not complete"):
        main(["knn", "--train", str(tmp_path)])
