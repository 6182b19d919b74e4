# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.settings import compound_rules, rules


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (
            compound_rules.Pair(rules.Number(0.0, 1.0, above=True), "x"),
            ((0.1, 1), [0.5, 0.5]),
            ((1.0, 0.1), (0.0, 1.0), (0.1, 1.1), (0.5,), (0.1, 0.2, 0.3), 0.5, "0.1", ((0.1, 1),)),
        ),
        (
            compound_rules.Several(rules.Whole(1), "x"),
            ((), (224,), [224, 299]),
            ((0,), (224, 224), (224.0,), 224, "224", ((224, 299),)),
        ),
        (compound_rules.Several(rules.Whole(1), "x", minimum=1, repeats=True), ((2, 2),), ((),)),
        (
            compound_rules.Records({"a": rules.Steps(), "b": rules.Whole(1)}, "x"),
            ((), ((4, 32),), [[0.5, 32], (9, 32)]),
            ((4, 32), ((4,),), ((4, 32, 16),), ((0, 32),), ((4, 3.5),), "((4, 32),)", 4),
        ),
    ],
)
def test_what_each_rule_takes(rule, good, bad):
    assert [rule.problem(value) for value in good] == [None] * len(good)
    assert all(rule.problem(value) for value in bad)


def test_a_message_shows_a_long_value_in_a_short_line():
    told = compound_rules.Several(rules.Whole(1), "x").problem(("y" * 10_000,))
    assert len(told) < 500


def test_what_a_tuple_may_contain_is_said():
    rule = compound_rules.Several(rules.Choice(("a", "b")), "'(\"a\",)'")
    assert rule.allowed == "a tuple, written as '(\"a\",)'; each value is one of a, b"


def test_records_resolve_part_by_part():
    rule = compound_rules.Records({"from": rules.Steps(), "size": rules.Whole(1)}, "x")
    assert rule.resolve([[0.5, 32], (9, 48)], 20) == ((10, 32), (9, 48))


def test_a_value_left_open_is_neither_judged_nor_resolved():
    rule = compound_rules.Open(rules.Steps(), "by the set")
    assert rule.problem(0) is None and rule.resolve(0, 20) == 0
    assert rule.resolve(0.5, 20) == 10
    assert rule.problem(False), "False equals 0, but is no number"
    assert rule.problem(2.5)


def test_zero_is_a_value_where_another_one_leaves_it_open():
    rule = compound_rules.Open(rules.Whole(0, 100, zero="none"), "by the set", -1)
    assert [rule.is_open(value) for value in (-1, 0, 2, False)] == [True, False, False, False]
    assert rule.problem(-1) is None and rule.problem(0) is None and rule.problem(-2)
    assert rule.allowed == "a whole number, 0 (none) to 100; -1: chosen by the set"
