#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs on each host, called by gpu.sh: gpu_host.sh run --config=... | gpu_host.sh signal TERM|KILL
# ssh does not forward signals, so the program's process id is stored in a file.
set -euo pipefail
cd "$(dirname "$0")/.."

PID_FILE=${TMPDIR:-/tmp}/mlimages_jax.$UID.pid

# Whether a program started by this script is running; stores its process id in PID.
find_running() {
    PID=$(cat "$PID_FILE" 2>/dev/null) && ps -o args= -p "$PID" | grep -q -e mlimages_jax.main -e gpu_host.sh
}

send() {
    if [[ $1 == KILL ]]; then
        # Including its data workers, which are in its process group.
        kill -KILL -- "-$(ps -o pgid= -p "$PID" | tr -d ' ')"
    else
        kill "-$1" "$PID"
    fi
}

# A program whose ssh connection broke may still be running, and two programs must not share a workdir.
end_leftover() {
    find_running || return 0
    echo "gpu_host.sh: stopping process $PID of an earlier start"
    send TERM
    timeout 150 tail --pid="$PID" -f /dev/null || send KILL
}

case "${1:-}" in
    run)
        shift
        end_leftover
        echo "$$" >"$PID_FILE"
        # shellcheck source=launch/xla_flags.sh
        source launch/xla_flags.sh gpu
        exec .venv/bin/python -m mlimages_jax.main "$@"
        ;;
    signal)
        if find_running; then send "$2"; fi
        ;;
    *)
        echo 'usage: launch/gpu_host.sh run --config=... | signal TERM|KILL; gpu.sh calls it' >&2
        exit 2
        ;;
esac
