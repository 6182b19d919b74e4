# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax import goodput


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(goodput.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(goodput.time, "time", lambda: now[0])
    monkeypatch.setattr(goodput.process_identity, "uptime", lambda: now[0])
    return now


def _run(path, clock, *, restored, seconds, done):
    """One run: 2 s of imports, 3 s to restore, then steps with input and saves inside."""
    run = goodput.Goodput(path, started=clock[0] - 2)
    with run.phase("restore"):
        clock[0] += 3
    run.restored = run.step = restored
    with run.phase("step"):
        for step in range(restored + 1, restored + done + 1):
            clock[0] += 0.5 + seconds
            run.move(0.5, "input")
            run.step = step
            if step % 10 == 0:
                with run.phase("save"):
                    clock[0] += 4
                run.write()
    return run


def test_the_parts_of_a_run_add_up_to_its_time(tmp_path, clock):
    with _run(tmp_path / "g.jsonl", clock, restored=0, seconds=1, done=20):
        clock[0] += 7
    total = goodput.summary(goodput.read(tmp_path / "g.jsonl"))
    assert total == {
        "startup": 9, "restore": 3, "compile": 0, "input": 10, "step": 20, "lost": 0,
        "evaluation": 0, "save": 8, "gap": 0,
    }  # fmt: skip
    assert sum(total.values()) == clock[0] - 998


def test_a_killed_run_has_lost_what_the_next_one_does_again(tmp_path, clock):
    path = tmp_path / "g.jsonl"
    _run(path, clock, restored=0, seconds=1, done=35)  # killed 5 steps after its line of step 30
    path.write_text(path.read_text() + '{"start": 99')  # and in the middle of a line
    clock[0] += 60
    path.write_text(path.read_text() + "\n")
    with _run(path, clock, restored=20, seconds=2, done=20):
        pass
    runs = goodput.read(path)
    total = goodput.summary(runs)
    assert total["lost"] == 10  # steps 21 to 30, of one second
    assert total["step"] == 20 + 2 * 20
    assert total["gap"] == 5 * 1.5 + 60 - 2
    assert sum(total.values()) == clock[0] - 998
    assert "2 runs, 40 steps" in goodput.table(runs)


def test_an_error_inside_a_phase_ends_the_phase(clock):
    run = goodput.Goodput(None)
    with pytest.raises(KeyError), run.phase("evaluation"):
        clock[0] += 1
        raise KeyError
    clock[0] += 2
    run.write()
    assert run._seconds["evaluation"] == 1
    assert run._seconds["startup"] == 2


def test_the_command_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="name the workdir of a training"):
        goodput.main([str(tmp_path)])
