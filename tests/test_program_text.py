# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks/step_program.py reads in a program is what stands there."""

import json

import pytest

from benchmarks.peers import program_text
from tests.test_benchmarks import load

# 4 x 2 bfloat16 are 16 bytes, 8 float32 are 32. VMEM is S(1).
PROGRAM = """HloModule step

%fused (p: bf16[4,2]) -> bf16[4,2] {
  %p = bf16[4,2]{1,0} parameter(0)
  ROOT %inside = bf16[4,2]{1,0} copy(%p), backend_config={"estimated_cycles":"7"}
}

ENTRY %main (image: bf16[4,2]) -> (f32[8]) {
  %image = bf16[4,2]{1,0:T(8,128)(2,1)} parameter(0), sharding={replicated}
  %copy-start = (bf16[4,2]{1,0:T(8,128)S(1)}, bf16[4,2]{1,0}, u32[]{:S(2)}) copy-start(%image)
  %copy-done = bf16[4,2]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((bf16[4,2]{1,0}), bf16[1,2]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%image)
  %fusion.1 = (f32[2,4,1,1]{0:S(1)}, bf16[4,2]{1,0}) fusion(%copy-done, %image), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  %get-tuple-element.2 = bf16[4,2]{1,0} get-tuple-element(%fusion.1), index=1
  %copy.3 = bf16[4,2]{0,1} copy(%get-tuple-element.2), backend_config={"estimated_cycles":"20"}
  %all-reduce.1 = f32[8]{0} all-reduce(%copy.3), replica_groups={}
  ROOT %tuple = (f32[8]{0}) tuple(%all-reduce.1)
}
"""  # noqa: E501


def test_bytes_are_counted_where_they_are_stored():
    moved = program_text.moved(PROGRAM)
    async_copies = 16 + 4  # the source of the whole copy, and of the slice
    fusion = 16 + 16  # its second operand, and its second result
    assert moved.main == async_copies + fusion + 2 * 16  # and the copy
    assert moved.near == 16 + 4 + 16 + 32
    assert (moved.copies, moved.num_copies) == (16, 0)


def test_estimates_count_the_main_computation_and_operations_all_of_it():
    assert program_text.estimated_cycles(PROGRAM) == 120
    counts = program_text.counts(PROGRAM)
    assert (counts["copy"], counts["fusion"], counts["all-reduce"]) == (2, 1, 1)
    assert program_text.islands(PROGRAM, batch=4) == [((2, 4, 1, 1), 1)]


def test_kept_figures_are_not_compiled_again(tmp_path, monkeypatch):
    script = load("step_program")
    asked = []

    class Compiler:
        def __init__(self, module, settings):
            asked.append(settings["batch"])
            self.about = {"flops": 1.0}

        def __enter__(self):
            if asked[-1] == 3:
                raise RuntimeError("the compiler fails")
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(script, "Peer", Compiler)
    results = tmp_path / "programs.jsonl"
    for batch in (1, 2, 1, 2):
        assert script.kept_or_new({"batch": batch}, results) == {"flops": 1.0}
    assert asked == [1, 2]
    for _ in range(2):  # a failure is not kept
        with pytest.raises(RuntimeError, match="the compiler fails"):
            script.kept_or_new({"batch": 3}, results)
    kept = [json.loads(line)["settings"] for line in results.read_text().splitlines()]
    assert kept == [{"batch": 1}, {"batch": 2}]
