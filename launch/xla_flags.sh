# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Sets the environment for one platform; source it before jax starts:  source launch/xla_flags.sh tpu|gpu|cpu
#
# The only file with compiler flags. None of them was measured here. Flags that are already set come last and win.
# The names were checked in jaxlib 0.10.2 and 0.11.2 (gpu), and in the libtpu that these require, 0.0.42.1 and 0.0.48.1
# (tpu: the names exist, but nothing was run on a TPU). XLA aborts on unknown flags in XLA_FLAGS.

case "${1:-}" in
    tpu)
        # Without a TPU this is an error instead of a run on the CPU. https://docs.jax.dev, configuration options.
        export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu,cpu}"
        # Between slices gradients are all-reduced over the data centre's network; overlap that with computation, also
        # for arrays of different sizes. AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py, DATA_PARALLEL_OVERLAP.
        LIBTPU_INIT_ARGS="--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true ${LIBTPU_INIT_ARGS:-}"
        export LIBTPU_INIT_ARGS
        ;;
    gpu)
        # jax would silently fall back to the CPU, so the program checks that it got the first platform listed.
        export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}"
        # Overlaps the all-reduce of gradients with the backward pass. https://docs.nvidia.com/jax-toolbox/environment-variables
        XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
        export XLA_FLAGS
        # jax preallocates 0.75 of the memory by default; nothing else runs on these GPUs. "Typically 0.9 or 0.8":
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
