#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs one training on Cloud TPU VMs, on one or more slices, with a queued resource; see docs/launch.md for a guide.
set -euo pipefail

USAGE='usage: launch/tpu_vm.sh COMMAND --name=NAME --zone=ZONE [--project=PROJECT] [options] [-- --config=... --workdir=...]

commands
  create         request the machines            --accelerator-type= --runtime-version= [--slices=N] [--spot]
  setup          install the code on every host  --repository=URL [--revision=main]
  run            start or restart on every host; arguments after -- are passed to mlimages_jax.main
  tail           follow the log of one host      [--node=0] [--worker=0]
  status         show the state of the request and of the program on every host
  restart-watch  create, setup and run, and repeat whenever the machines are preempted, until the training ends.
                 Needs the options of create and setup, and the arguments after -- [--poll=SECONDS, 60]
  stop           send SIGTERM: every host saves a checkpoint and is not restarted
  delete         release the machines

options
  --dry-run                print the commands without running them
  --create-option=OPTION   extra option of gcloud compute tpus queued-resources create; may be repeated
  --ssh-option=OPTION      extra option of ... queued-resources ssh, e.g. --tunnel-through-iap; may be repeated'

# shellcheck source=launch/quoting.sh
source "$(dirname "$0")/quoting.sh"

UNIT="mlimages@\$USER.service" # $USER is expanded on the hosts

usage_error() {
    printf 'error: %s\n\n%s\n' "$1" "$USAGE" >&2
    exit 2
}

parse() {
    [[ $# -gt 0 ]] || usage_error 'no command given'
    COMMAND=$1
    shift
    NAME='' ZONE='' PROJECT='' ACCELERATOR_TYPE='' RUNTIME_VERSION='' REPOSITORY=''
    SLICES=1 REVISION=main NODE=0 WORKER=0 POLL=60 SPOT=false DRY_RUN=false
    CREATE_OPTIONS=() SSH_OPTIONS=() ARGUMENTS=()
    while [[ $# -gt 0 ]]; do
        case $1 in
            --name=*) NAME=${1#*=} ;;
            --zone=*) ZONE=${1#*=} ;;
            --project=*) PROJECT=${1#*=} ;;
            --accelerator-type=*) ACCELERATOR_TYPE=${1#*=} ;;
            --runtime-version=*) RUNTIME_VERSION=${1#*=} ;;
            --slices=*) SLICES=${1#*=} ;;
            --spot) SPOT=true ;;
            --repository=*) REPOSITORY=${1#*=} ;;
            --revision=*) REVISION=${1#*=} ;;
            --node=*) NODE=${1#*=} ;;
            --worker=*) WORKER=${1#*=} ;;
            --poll=*) POLL=${1#*=} ;;
            --dry-run) DRY_RUN=true ;;
            --create-option=*) CREATE_OPTIONS+=("${1#*=}") ;;
            --ssh-option=*) SSH_OPTIONS+=("${1#*=}") ;;
            --)
                shift
                ARGUMENTS=("$@")
                break
                ;;
            *) usage_error "unknown option '$1'; write options as --name=VALUE" ;;
        esac
        shift
    done
    WHERE=("$NAME" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"})
}

# Exits with a message if any of the named variables is empty: need ZONE RUNTIME_VERSION.
need() {
    local variable option
    for variable in "$@"; do
        option=${variable,,}
        [[ -n ${!variable} ]] || usage_error "$COMMAND needs --${option//_/-}="
    done
}

need_arguments() {
    [[ ${#ARGUMENTS[@]} -gt 0 ]] || usage_error "$COMMAND needs -- --config=... --workdir=..."
}

# Runs a command, or prints it with --dry-run.
do_or_show() {
    if $DRY_RUN; then quoted_line "$@"; else "$@"; fi
}

queued_resources() {
    local verb=$1
    shift
    do_or_show gcloud compute tpus queued-resources "$verb" "${WHERE[@]}" "$@"
}

# Runs a script on every host of every slice in parallel; fails if it fails on any of them.
# (`tpu-vm ssh --worker=all` reaches only the hosts of one slice.)
on_all_hosts() {
    queued_resources ssh --node=all --worker=all ${SSH_OPTIONS[@]+"${SSH_OPTIONS[@]}"} "--command=$1"
}

create() {
    local nodes=("--node-id=$NAME")
    if [[ $SLICES != 1 ]]; then nodes=("--node-count=$SLICES" "--node-prefix=$NAME"); fi
    if $SPOT; then nodes+=(--spot); fi
    queued_resources create "--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=$RUNTIME_VERSION" \
        "${nodes[@]}" ${CREATE_OPTIONS[@]+"${CREATE_OPTIONS[@]}"}
}

# The TPU VM images have a Python older than 3.11, so uv installs one. A workdir in gs:// needs gcsfs, and
# mlimages_jax/data/images/_jpeg.c needs the headers of libjpeg-turbo.
setup() {
    on_all_hosts "set -eu
cd \"\$HOME\"
[ -d mlimages_jax ] || git clone --quiet $(quoted "$REPOSITORY") mlimages_jax
cd mlimages_jax
git fetch --quiet $(quoted "$REPOSITORY") $(quoted "$REVISION")
git checkout --quiet --detach FETCH_HEAD
export PATH=\"\$HOME/.local/bin:\$PATH\"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
sudo apt-get install --yes --quiet gcc libjpeg-dev >/dev/null || echo \"no libjpeg-dev: images will be fully decoded, which is slower\" >&2
uv venv --quiet --allow-existing --python 3.13 .venv
uv pip install --quiet --requirement requirements.txt --editable '.[tpu]' 'etils[epath-gcs]'"
}

run() {
    on_all_hosts "set -eu
cd \"\$HOME\"
cat > mlimages_run.sh <<'END_OF_RUN'
set -eu
cd \"\$HOME/mlimages_jax\"
source launch/xla_flags.sh tpu
exec .venv/bin/python -m mlimages_jax.main $(quoted_line "${ARGUMENTS[@]}")
END_OF_RUN
sudo cp mlimages_jax/launch/mlimages@.service /etc/systemd/system/
sudo systemctl daemon-reload
sudo systemctl reset-failed $UNIT || true
sudo systemctl enable --quiet $UNIT
sudo systemctl restart $UNIT"
}

tail_log() {
    queued_resources ssh "--node=$NODE" "--worker=$WORKER" ${SSH_OPTIONS[@]+"${SSH_OPTIONS[@]}"} \
        "--command=sudo journalctl --unit=$UNIT --output=cat --lines=100 --follow"
}

request_state() {
    queued_resources describe '--format=value(state.state)'
}

# One line per host: LoadState=loaded ActiveState=active ExecMainStatus=0.
host_states() {
    on_all_hosts "systemctl show $UNIT --property=LoadState,ActiveState,ExecMainStatus,NRestarts | tr '\\n' ' '; echo"
}

stop() {
    on_all_hosts "sudo systemctl disable --quiet --now $UNIT"
}

delete() {
    queued_resources delete --force --quiet
}

note() {
    printf '%s %s\n' "$(date -u +%H:%M:%S)" "$1" >&2
}

# Prints ACTIVE, SUSPENDED, ...; NONE if the request does not exist; UNKNOWN if gcloud failed for another reason.
watched_state() {
    local answer
    if answer=$(request_state 2>&1); then
        printf '%s\n' "${answer##*$'\n'}"
    elif [[ $answer == *NOT_FOUND* ]]; then
        echo NONE
    else
        note "gcloud: $answer"
        echo UNKNOWN
    fi
}

# With the machines up: installs and starts the program, or checks its state. Exits when the training has ended.
look_after_hosts() {
    local states
    if ! states=$(host_states); then
        note 'the hosts do not answer'
    elif [[ $states == *LoadState=not-found* ]]; then
        note 'new hosts: installing and starting'
        { setup && run; } || note 'that failed; retrying'
    elif [[ $states == *ActiveState=failed* ]]; then
        note "stopped by an error that a restart does not fix; see tail --node= --worker=, then delete:"$'\n'"$states"
        stop || true
        exit 1
    elif [[ $states =~ ActiveState=(active|activating|deactivating) ]]; then
        return
    elif [[ $states == *ExecMainStatus=75* ]]; then
        note 'stopped by the user, with a checkpoint; the machines are still allocated: run or delete'
        exit 0
    elif [[ $states == *ActiveState=inactive* ]]; then
        note 'the training is done; the machines are still allocated: delete releases them'
        exit 0
    else
        note "unexpected answer from the hosts: $states"
    fi
}

# A preempted request becomes SUSPENDED and is never served again, so it is deleted and recreated.
restart_watch() {
    if $DRY_RUN; then
        echo '# if there is no request of this name, or after it was SUSPENDED or FAILED and'
        delete
        echo '# was run:'
        create
        echo '# every minute, until ACTIVE:'
        request_state
        echo '# on new hosts:'
        setup
        run
        echo '# every minute, until the training has ended:'
        host_states
        return
    fi
    local state last=''
    while true; do
        state=$(watched_state)
        if [[ $state != "$last" ]]; then note "request $NAME: $state"; fi
        last=$state
        case $state in
            ACTIVE) look_after_hosts ;;
            NONE) create || note 'create failed; retrying' ;;
            SUSPENDED | FAILED) delete || note 'delete failed; retrying' ;;
        esac
        sleep "$POLL"
    done
}

main() {
    parse "$@"
    case $COMMAND in
        create | setup | run | tail | status | restart-watch | stop | delete) need NAME ZONE ;;
        help | --help | -h)
            echo "$USAGE"
            return
            ;;
        *) usage_error "unknown command '$COMMAND'" ;;
    esac
    case $COMMAND in
        create)
            need ACCELERATOR_TYPE RUNTIME_VERSION
            create
            ;;
        setup)
            need REPOSITORY
            setup
            ;;
        run)
            need_arguments
            run
            ;;
        tail) tail_log ;;
        status)
            request_state
            host_states
            ;;
        stop) stop ;;
        delete) delete ;;
        restart-watch)
            need ACCELERATOR_TYPE RUNTIME_VERSION REPOSITORY
            need_arguments
            restart_watch
            ;;
    esac
}

main "$@"
