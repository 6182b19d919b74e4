#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs one training under SLURM; submit it from the repository's folder:
#   sbatch --nodes=4 launch/slurm.sh --config=... --workdir=...
# Options before the script's name override those below; --dry-run after it prints the command and needs no SLURM.
#
# One task per GPU, and every task sees all GPUs of its node: jax assigns the i-th GPU to the i-th task of a node
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
# SIGTERM to the tasks five minutes before the time limit: time for the current step and the checkpoint.
#SBATCH --signal=TERM@300
# Requeue after a preemption or a node failure.
#SBATCH --requeue
set -euo pipefail

PYTHON=${PYTHON:-.venv/bin/python}
MAX_RESTARTS=${MAX_RESTARTS:-20} # limits requeues after crashes, but SLURM counts all requeues
SAVED=75

# srun exits with the largest exit code of its tasks. 1, an error that the user must fix, must not be masked by the 134
# and 137 of tasks that lost their peer, so tasks exit with 250 instead. The shell ignores SIGTERM and waits for the
# program, which handles it.
USER_ERROR=250
TASK="trap : TERM; code=0; \"\$@\" || code=\$?; [[ \$code != 1 ]] || code=$USER_ERROR; exit \$code"

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
    # Tasks that lose a peer exit by themselves within a minute; --wait gives them 150 s, checkpoints included.
    # Some versions of SLURM do not pass --cpus-per-task from sbatch to srun.
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

# Requeues the job or ends it, depending on the exit code of srun.
react() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    echo "slurm.sh: exit code $1 after $restarts restarts"
    case $1 in
        0) return ;;
        "$USER_ERROR") exit 1 ;;
        "$SAVED") ;;
        *)
            if [[ $restarts -ge $MAX_RESTARTS ]]; then
                echo "slurm.sh: giving up after $restarts restarts; see the log above"
                exit "$1"
            fi
            ;;
    esac
    scontrol requeue "$SLURM_JOB_ID"
}

main "$@"
