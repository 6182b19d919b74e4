#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# One training under SLURM:  sbatch --nodes=4 launch/slurm.sh --config=... --workdir=...   (from the repository)
# Options before the script's name override those below; --dry-run after it prints the command, without SLURM.
#
# A task a GPU, and all GPUs of the node visible to each: jax gives task i of a node the i-th card
# (jax/_src/clusters/slurm_cluster.py). --gpus-per-task would hide the others: github.com/jax-ml/jax/issues/28194.
#SBATCH --job-name=mlimages
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=12
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --time=24:00:00
# To the tasks, five minutes before the time is over: for the step under way and the checkpoint.
#SBATCH --signal=TERM@300
# Back into the queue when preempted or when a node fails.
#SBATCH --requeue
set -euo pipefail

PYTHON=${PYTHON:-.venv/bin/python}
MAX_RESTARTS=${MAX_RESTARTS:-20} # after crashes; SLURM counts every requeue, those with a checkpoint too
SAVED=75

# srun ends with the largest code of its tasks. 1, an error for a person, must not drown in the 134 and 137 of the
# tasks that lost their peer, so a task says 250 for it. SIGTERM reaches this shell too: it waits for the program.
FOR_A_PERSON=250
TASK="trap : TERM; code=0; \"\$@\" || code=\$?; [[ \$code != 1 ]] || code=$FOR_A_PERSON; exit \$code"

main() {
    local dry_run=false code=0
    if [[ ${1:-} == --dry-run ]]; then
        dry_run=true
        shift
    fi
    if [[ $# -eq 0 ]]; then
        echo 'usage: sbatch [SLURM options] launch/slurm.sh [--dry-run] --config=... --workdir=...' >&2
        exit 2
    fi
    if [[ ! -e launch/xla_flags.sh ]]; then
        echo "error: no launch/xla_flags.sh in $PWD: submit from the repository's folder" >&2
        exit 2
    fi
    # Tasks whose peer is lost end by themselves within a minute; srun gives them, and their checkpoints, 150 s.
    # Older versions of SLURM do not pass --cpus-per-task on by themselves.
    local step=(srun --kill-on-bad-exit=0 --wait=150 --label "--cpus-per-task=${SLURM_CPUS_PER_TASK:-1}"
        bash -c "$TASK" task "$PYTHON" -m mlimages_jax.main "$@")
    if $dry_run; then
        # shellcheck source=launch/quoting.sh
        source launch/quoting.sh
        quoted_line "${step[@]}"
        return
    fi
    # shellcheck source=launch/xla_flags.sh
    source launch/xla_flags.sh gpu
    "${step[@]}" || code=$?
    react "$code"
}

# Back into the queue, or the end, by the exit code of srun.
react() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    echo "slurm.sh: exit code $1 after $restarts restarts"
    case $1 in
        0) return ;;
        "$FOR_A_PERSON") exit 1 ;;
        "$SAVED") ;;
        *)
            if [[ $restarts -ge $MAX_RESTARTS ]]; then
                echo "slurm.sh: $restarts restarts did not help; see the log above"
                exit "$1"
            fi
            ;;
    esac
    scontrol requeue "$SLURM_JOB_ID"
}

main "$@"
