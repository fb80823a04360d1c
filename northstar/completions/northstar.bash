# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate from the command line of northstar.
# shellcheck shell=bash

# Names of containers or repositories, one per line.
_northstar_names() {
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$(printf %q "$name")")
    done < <("${words[0]}" --complete "$1" "${words[@]:1}" 2>/dev/null)
}

_northstar() {
    local line=${COMP_LINE:0:COMP_POINT} words=() word current command='' position=0 kind='' prefix
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    current=${words[${#words[@]} - 1]}
    for word in "${words[@]:1:${#words[@]} - 2}"; do
        if [[ -n $kind ]]; then
            kind=''
            continue
        fi
        case "$command $word" in
            " -c" | " --config") kind=files ;;
            *" -"*) ;;
            *) if [[ -z $command ]]; then command=$word; else position=$((position + 1)); fi ;;
        esac
    done
    if [[ -z $kind && $current == -* ]]; then
        case $command in
            '') kind='words -h --help -c --config -d --disable-mount-namespace --check -V --version' ;;
            try) kind='words -h --help -k --keep -v --verbose' ;;
        esac
    elif [[ -z $kind ]]; then
        case "$command $position" in
            " 0") kind='words try' ;;
            "try "*) kind=files ;;
            *) ;;
        esac
    fi
    COMPREPLY=()
    case $kind in
        containers | repositories) _northstar_names "$kind" ;;
        files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            ;;
        directories)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            ;;
        words*) mapfile -t COMPREPLY < <(compgen -W "${kind#words}" -- "$current") ;;
    esac
    # Bash replaces only what is behind the last colon.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        prefix=${current%"${current##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
}

complete -F _northstar northstar
