# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Environment of one platform, before jax starts:  source launch/xla_flags.sh tpu|gpu|cpu
#
# The only file with compiler flags. None of them was measured here. Yours, where already set, come last and win.
# Names were looked up in jaxlib 0.10.2 and 0.11.2 (gpu), and in the libtpu that these ask for, 0.0.42.1 and 0.0.48.1
# (tpu: the names are in it, but nothing was run on a TPU). XLA ends a program at a flag of XLA_FLAGS it does not know.

case "${1:-}" in
    tpu)
        # Without a TPU an error, not a run on the CPU. https://docs.jax.dev, configuration options.
        export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu,cpu}"
        # Several slices: gradients are summed over the data centre's network; overlap that with computation, also
        # of arrays of different sizes. AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py, DATA_PARALLEL_OVERLAP.
        LIBTPU_INIT_ARGS="--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true ${LIBTPU_INIT_ARGS:-}"
        export LIBTPU_INIT_ARGS
        ;;
    gpu)
        # As above: jax itself would take the CPU without a word, so the program looks whether it got what is named first.
        export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}"
        # Sums gradients while the backward pass goes on. https://docs.nvidia.com/jax-toolbox/environment-variables
        XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
        export XLA_FLAGS
        # jax takes 0.75 of the memory if not told; nothing else runs on these cards. "Typically 0.9 or 0.8":
        # https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance
        export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
        ;;
    cpu)
        export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
        ;;
    *)
        echo "error: source launch/xla_flags.sh tpu, gpu or cpu, not '${1:-}'" >&2
        return 2
        ;;
esac
