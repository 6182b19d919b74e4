# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest

from mlimages_jax.monitoring import goodput


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
    with pytest.raises(SystemExit, match="give the workdir of a training"):
        goodput.show(str(tmp_path))


def test_a_refused_start_takes_no_step_away(tmp_path, clock):
    path = tmp_path / "g.jsonl"
    with _run(path, clock, restored=0, seconds=1, done=20):
        pass
    with pytest.raises(ValueError, match="refused"), goodput.Goodput(path) as run:
        with run.phase("restore"):
            clock[0] += 5
        raise ValueError("refused")
    assert len(goodput.read(path)) == 1
    with _run(path, clock, restored=20, seconds=1, done=20):
        pass
    total = goodput.summary(goodput.read(path))
    assert (total["lost"], total["step"], total["gap"]) == (0, 40, 3)  # 5 s, less 2 of imports


def test_lines_of_refused_starts_by_earlier_versions_are_passed_over(tmp_path, clock):
    path = tmp_path / "g.jsonl"
    with _run(path, clock, restored=0, seconds=1, done=20):
        pass
    old = {"start": clock[0], "time": clock[0] + 1, "restored": 0, "step": 0}
    seconds = dict.fromkeys(goodput.CATEGORIES, 0.0)
    with path.open("a") as file:
        file.write(json.dumps(old | {"seconds": seconds}) + "\n")
    with _run(path, clock, restored=20, seconds=1, done=20):
        pass
    assert goodput.summary(goodput.read(path))["lost"] == 0


def test_days_behind_a_finished_training_are_nobodys(tmp_path, clock):
    path = tmp_path / "g.jsonl"
    with _run(path, clock, restored=0, seconds=1, done=20) as run:
        run.finished = True
    for done in (0, 20):  # started again for nothing; then to go on for longer
        clock[0] += 5 * 86_400
        with _run(path, clock, restored=20, seconds=1, done=done) as run:
            run.finished = True
    assert goodput.summary(goodput.read(path))["gap"] == 0


def test_a_finished_training_of_an_earlier_version_is_known_by_the_idle_run_behind_it(
    tmp_path, clock
):
    path = tmp_path / "g.jsonl"
    for restored, done in ((0, 20), (20, 0)):
        with _run(path, clock, restored=restored, seconds=1, done=done):
            pass
        clock[0] += 5 * 86_400
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = ("start", "time", "restored", "step", "seconds")
    path.write_text("".join(json.dumps({k: line[k] for k in kept}) + "\n" for line in lines))
    assert goodput.summary(goodput.read(path))["gap"] == 0


@pytest.mark.parametrize("jump", [-3_600, 3_600, 10 * 365 * 86_400])
def test_a_clock_that_is_set_changes_nothing(tmp_path, monkeypatch, clock, jump):
    def with_jumps(at):
        path = tmp_path / f"{jump}-{at}.jsonl"
        clock[0] = 1_000.0
        offset = [0.0]
        monkeypatch.setattr(goodput.time, "time", lambda: clock[0] + offset[0])
        for number, restored in enumerate((0, 20)):
            with _run(path, clock, restored=restored, seconds=1, done=20):
                offset[0] += jump if at == "within" else 0
                clock[0] += 7
            offset[0] += jump if at == "between" and not number else 0
            clock[0] += 50
        return goodput.summary(goodput.read(path))

    assert with_jumps("within") == with_jumps("between") == with_jumps("never")
