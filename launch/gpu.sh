#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs one training on GPU hosts reached by ssh, or on this host: one process per host, which uses all its GPUs.
# Stays in the foreground and restarts all processes when one exits early, so run it in tmux or as a service.
set -euo pipefail

USAGE='usage: launch/gpu.sh [options] -- --config=... --workdir=...

  --hosts=A,B,C       hosts reached by ssh without a password; the first one is the coordinator [this host]
  --directory=FOLDER  folder with the code and .venv, the same on every host [the current folder]
  --port=PORT         port of the coordinator on the first host [8476]
  --max-restarts=N    maximum number of restarts after crashes; exits with a checkpoint (75) do not count [20]
  --grace=SECONDS     time for the others to exit after the first one did; then SIGTERM, then SIGKILL [150]
  --dry-run           print the commands without running them

Exit codes: 0 done; 1 an error that a restart does not fix; 75 stopped by SIGTERM or Ctrl-C, with a checkpoint.'

DONE=0 USER_ERROR=1 SAVED=75

# shellcheck source=launch/quoting.sh
source "$(dirname "$0")/quoting.sh"

usage_error() {
    printf 'error: %s\n\n%s\n' "$1" "$USAGE" >&2
    exit 2
}

parse() {
    HOSTS=() DIRECTORY=$PWD PORT=8476 MAX_RESTARTS=20 GRACE=150 DRY_RUN=false ARGUMENTS=()
    while [[ $# -gt 0 ]]; do
        case $1 in
            --hosts=?*) IFS=, read -ra HOSTS <<<"${1#*=}" ;;
            --directory=*) DIRECTORY=${1#*=} ;;
            --port=*) PORT=${1#*=} ;;
            --max-restarts=*) MAX_RESTARTS=${1#*=} ;;
            --grace=*) GRACE=${1#*=} ;;
            --dry-run) DRY_RUN=true ;;
            --help | -h)
                echo "$USAGE"
                exit
                ;;
            --)
                shift
                ARGUMENTS=("$@")
                break
                ;;
            *) usage_error "unknown option '$1'; write options as --name=VALUE, and those of the program after --" ;;
        esac
        shift
    done
    [[ ${#ARGUMENTS[@]} -gt 0 ]] || usage_error 'gpu.sh needs -- --config=... --workdir=...'
    if [[ ${#HOSTS[@]} -eq 0 ]]; then HOSTS=(localhost); fi
}

# Runs gpu_host.sh on a host, or prints the command.
on_host() {
    local host=$1 command
    shift
    if [[ $host == localhost ]]; then
        command=("$DIRECTORY/launch/gpu_host.sh" "$@")
    else
        command=(ssh -n -o BatchMode=yes -o ServerAliveInterval=30 "$host"
            "exec $(quoted_line "$DIRECTORY/launch/gpu_host.sh" "$@")")
    fi
    if $DRY_RUN; then quoted_line "${command[@]}"; else "${command[@]}"; fi
}

run_process() {
    local number=$1 cluster=()
    if [[ ${#HOSTS[@]} -gt 1 ]]; then
        cluster=("--coordinator_address=${HOSTS[0]#*@}:$PORT" "--num_processes=${#HOSTS[@]}" "--process_id=$number")
    fi
    on_host "${HOSTS[number]}" run "${ARGUMENTS[@]}" ${cluster[@]+"${cluster[@]}"}
}

signal_all() {
    local host
    for host in "${HOSTS[@]}"; do
        on_host "$host" signal "$1" || echo "gpu.sh: $host: SIG$1 could not be sent" >&2
    done
}

start_all() {
    local number
    PIDS=()
    for number in "${!HOSTS[@]}"; do
        run_process "$number" > >(sed -u "s/^/[${HOSTS[number]}] /") 2>&1 &
        PIDS+=($!)
    done
}

count_running() {
    local pid
    RUNNING=0
    for pid in "${PIDS[@]}"; do
        if kill -0 "$pid" 2>/dev/null; then RUNNING=$((RUNNING + 1)); fi
    done
}

# Stores the exit codes of all processes in CODES. Peers of a lost process exit by themselves within a minute. A
# process whose ssh connection broke does not, so it is sent signals.
wait_for_all() {
    local pid since='' signals=(TERM KILL)
    count_running
    while [[ $RUNNING -gt 0 ]]; do
        if [[ -z $since && $RUNNING -lt ${#PIDS[@]} ]] || [[ -z $since && $STOPPING == true ]]; then since=$SECONDS; fi
        if [[ -n $since && ${#signals[@]} -gt 0 && $((SECONDS - since)) -ge $GRACE ]]; then
            signal_all "${signals[0]}"
            signals=("${signals[@]:1}")
            since=$SECONDS
        fi
        sleep 0.2
        count_running
    done
    CODES=()
    for pid in "${PIDS[@]}"; do
        if wait "$pid"; then CODES+=(0); else CODES+=($?); fi
    done
}

# Prints what the exit codes mean together: that of the most severe one.
verdict() {
    local code result=finished
    for code in "${CODES[@]}"; do
        case $code in
            "$USER_ERROR")
                echo user_error
                return
                ;;
            "$DONE") ;;
            "$SAVED") if [[ $result == finished ]]; then result=saved; fi ;;
            *) result=crashed ;;
        esac
    done
    echo "$result"
}

supervise() {
    local restarts=0 result
    while true; do
        start_all
        wait_for_all
        result=$(verdict)
        echo "gpu.sh: $result: exit codes ${CODES[*]} of ${HOSTS[*]}" >&2
        case $result in
            finished) exit "$DONE" ;;
            user_error) exit "$USER_ERROR" ;;
            crashed) restarts=$((restarts + 1)) ;;
        esac
        if $STOPPING; then exit "$SAVED"; fi
        if [[ $restarts -gt $MAX_RESTARTS ]]; then
            echo "gpu.sh: giving up after $MAX_RESTARTS restarts; see the log above" >&2
            exit "$USER_ERROR"
        fi
    done
}

main() {
    local number
    parse "$@"
    if $DRY_RUN; then
        for number in "${!HOSTS[@]}"; do
            run_process "$number"
        done
        return
    fi
    STOPPING=false
    set -m # a process group per process: Ctrl-C reaches only this script, which forwards it as SIGTERM
    trap 'STOPPING=true; signal_all TERM' TERM INT HUP
    supervise
}

main "$@"
