# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Words and lines as a shell reads them back; sourced by the scripts beside it.

# In single quotes where it has to be.
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
