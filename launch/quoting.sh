# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Quotes words and command lines for a shell; sourced by the other scripts in this folder.

# Adds single quotes only if needed.
quoted() {
    local word=$1
    if [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
        printf '%s' "$word"
    else
        printf "'%s'" "${word//\'/\'\\\'\'}"
    fi
}

quoted_line() {
    local word line=''
    for word in "$@"; do
        line+=" $(quoted "$word")"
    done
    printf '%s\n' "${line# }"
}
