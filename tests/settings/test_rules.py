# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest

from mlimages_jax.settings import rules, tasks

NOTHING_ALLOWS = (None, object(), {}, {"a": 1}, [object()], (None,), b"1")
NUMBERS = (rules.Whole(1), rules.Number(0.0), rules.Steps(zero="off"))
ALL = sorted({(name, s.rule) for t in tasks.TABLES.values() for name, s in t.items()}, key=str)


@pytest.mark.parametrize(("name", "rule"), ALL, ids=[name for name, _ in ALL])
def test_no_rule_takes_what_is_no_setting_and_each_says_what_it_takes(name, rule):
    for value in NOTHING_ALLOWS:
        if value is None and getattr(rule, "none", ""):
            continue
        told = rule.problem(value)
        assert told, (name, value)
        assert told.startswith((": give ", " is none of ", " has ")), told
        assert "\n" not in told


@pytest.mark.parametrize("rule", NUMBERS, ids=str)
@pytest.mark.parametrize("value", [True, False, "1", "", math.nan, math.inf, -math.inf, -1, -0.5])
def test_numbers_are_finite_and_neither_bools_nor_texts(rule, value):
    assert rule.problem(value)


@pytest.mark.parametrize(("name", "rule"), ALL, ids=[name for name, _ in ALL])
@pytest.mark.parametrize("value", [10**400, 10**30, 2**31, -(10**400), 1e300, 4e38], ids=str)
def test_what_no_device_can_count_is_refused_everywhere(name, rule, value):
    """It ended in an OverflowError here, or far inside of a compilation."""
    number = getattr(rule, "each", getattr(rule, "rule", rule))
    if isinstance(number, rules.Number) and value in (10**30, 2**31):
        return
    for each in (value, (value,), (value, value), ((value, value, value),)):
        assert rule.problem(each), (name, each)


def test_a_message_shows_a_value_of_any_length_in_a_line():
    assert rules.shown([1, "\n"]) == r"(1, '\n')"
    assert len(rules.shown("x" * 10_000)) < 300


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (rules.Whole(1), (1, 7), (0, 1.0, 2.5)),
        (rules.Whole(0, 3), (0, 3), (4,)),
        (rules.Number(0.0, 1.0), (0, 0.0, 1, 0.5), (1.1,)),
        (rules.Number(0.0, 1.0, below=True), (0, 0.999), (1, 1.0)),
        (rules.Number(0.0, 1.0, above=True), (1.0, 1e-9), (0, 0.0)),
        (rules.Steps(), (1, 1.0, 300.0, 0.5), (0, 0.0, 1.5, -0.5)),
        (rules.Steps(zero="off"), (0, 0.0, 5, 0.001), (2.5,)),
        (rules.Flag(), (True, False), (0, 1, "True", None)),
        (rules.Flag(none="open"), (True, False, None), (0, "None")),
        (rules.Text(may_be_empty=False), ("a",), ("", 3)),
        (rules.Choice(("a", "b")), ("a",), ("", "c", 0, True, ("a",))),
    ],
)
def test_what_each_rule_takes(rule, good, bad):
    assert [rule.problem(value) for value in good] == [None] * len(good)
    assert all(rule.problem(value) for value in bad)


def test_a_choice_names_the_nearest():
    rule = rules.Choice(("global", "streams"))
    assert rule.problem("stream") == " is none of global, streams; did you mean 'streams'?"
    assert rule.problem("random").endswith("global, streams")


def test_fractions_become_steps():
    up, down = rules.Steps(), rules.Steps(zero="none", round_down=True)
    assert [up.resolve(0.1, total) for total in (1, 9, 10, 11, 100)] == [1, 1, 1, 2, 10]
    assert [down.resolve(0.1, total) for total in (1, 9, 10, 11, 100)] == [0, 0, 1, 1, 10]
    assert up.resolve(7.0, 3) == 7
    assert isinstance(up.resolve(7.0, 3), int)
    assert down.resolve(0.99, 1) == 0, "a warm-up that is a fraction is shorter than its run"
    everything = rules.Steps(zero="only at the end", zero_is_all=True)
    assert [everything.resolve(0, total) for total in (0, 1, 40)] == [1, 1, 40]


def test_a_fraction_of_a_published_length_is_the_published_number():
    for total in (257_955, 600_000, 1_100):
        for steps in (1, 25, 100, 550, 999, 1_099):
            for rule in (rules.Steps(), rules.Steps(zero="none", round_down=True)):
                assert rule.resolve(steps / total, total) == steps


def test_paths(tmp_path, monkeypatch):
    rule = rules.PathText(advice="build it")
    assert rule.missing("") is rule.missing("gs://bucket/x") is rule.missing(str(tmp_path)) is None
    assert rule.missing("nowhere") == ": this path does not exist: build it"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rule.missing("~") is None
    assert rules.PathText(must_exist=False).missing("nowhere") is None
