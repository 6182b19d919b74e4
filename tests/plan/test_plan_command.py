# SPDX-License-Identifier: BSD-3-Clause
import subprocess
import sys
from typing import NamedTuple

import pytest

from benchmarks.peers.job import inherited_environment
from mlimages_jax.plan.__main__ import main
from tests.support.small_run import ROOT


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def plan(capsys, monkeypatch):
    """Runs the command in this process, where networks that were traced before are known."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        said = "" if isinstance(end.value.code, int) else f"{end.value.code}\n"
        shown = capsys.readouterr()
        # The interpreter prints a text that a program exits with.
        return Ended(1 if said else end.value.code, shown.out, shown.err + said)

    return run


@pytest.mark.slow
def test_a_plan_without_data_or_accelerator(plan):
    ended = plan("--config=configs/pretrain.py", "--devices=64", "--chip=h100", "--price=2")
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout
    assert "no data set at data/ml_images" in text
    assert "65,375,326 parameters on 64 x NVIDIA H100 SXM, 8 hosts" in text
    assert "\n  fits\n" in text
    assert "47.2 GFLOP per image" in text
    assert "steps 1 to 257,955: 224 px, 60.0 epochs" in text
    assert " at 2.0 per hour" in text
    assert "of one process read" in text and " --config.input.num_workers=" in text


@pytest.mark.slow
def test_enough_worker_processes_are_not_asked_for_again(plan):
    words = ("--config=configs/pretrain.py", "--devices=8", "--chip=h100")
    (advice,) = (
        word for word in plan(*words).stdout.split() if word.startswith("--config.input.num_w")
    )
    assert "of one process read" not in plan(*words, advice).stdout


@pytest.mark.slow
def test_what_does_not_fit_is_told_with_what_would(plan):
    ended = plan(
        "--config=configs/pretrain.py", "--config.batch_size=256", "--devices=1", "--chip=v5e"
    )
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    assert "Memory per device: 256 images of 224 px, sharding replicated" in lines
    first = next(number for number, line in enumerate(lines) if "DOES NOT FIT" in line)
    assert lines[first + 1 : first + 5] == [
        "    --config.accumulate=2",
        "    --config.model.remat=True",
        "    --config.model.remat=True --config.sharding.name=full",
        "",
    ]


@pytest.mark.slow
def test_the_papers_recipe_is_made_to_fit(plan):
    """8 TPU v5e of 16 GB: by gradient accumulation, and nothing else."""
    words = ("--config=configs/pretrain.py:paper", "--devices=8", "--chip=v5e")
    ended = plan(*words)
    assert ended.returncode == 1
    assert "    --config.accumulate=4\n" in ended.stdout
    ended = plan(*words, "--fit")
    assert ended.returncode == 0, ended.stderr
    assert "--config.accumulate=4: the fewest parts that fit\n" in ended.stdout
    assert "512 images of 224 px in 4 parts of 128, sharding" in ended.stdout


def test_groups_over_several_devices_are_pointed_out(plan):
    ended = plan("--config=configs/pretrain.py", "--devices=512", "--chip=v5p")
    assert "statistics over groups of 32 span devices with 8 images" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--devices=8", "--chip=none"), "chip='none' is none of v3"),
        (("--devices=100", "--chip=h100"), "batch_size=4096 is not divisible by 100 devices"),
    ],
)
def test_mistakes_end_with_a_line(plan, arguments, message):
    ended = plan("--config=configs/pretrain.py", *arguments)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_the_compiler_is_asked():
    """A small network on two virtual devices."""
    words = [
        "--config=configs/quickstart.py",
        "--config.task=train",
        "--classes=24",
        "--images=1000",
        "--devices=2",
        "--chip=h100",
        "--config.group_size=32",
        "--config.model.stage_sizes=(1,)",
        "--config.model.stage_widths=(64,)",
        "--check=cpu",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "mlimages_jax.plan", *words],
        cwd=ROOT, env=inherited_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "XLA for cpu, compiled in" in ended.stdout
    assert "all-reduce" in ended.stdout
