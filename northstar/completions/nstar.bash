# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate from the command line of nstar.
# shellcheck shell=bash

# Names of containers or repositories, one per line.
_nstar_names() {
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$(printf %q "$name")")
    done < <("${words[0]}" --complete "$1" "${words[@]:1}" 2>/dev/null)
}

_nstar() {
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
            " -u" | " --url") kind=nothing ;;
            " -t" | " --timeout") kind=nothing ;;
            "list -f" | "list --format" | "ls -f" | "ls --format") kind='words table wide json' ;;
            "start -t" | "start --timeout") kind=nothing ;;
            "exec -e" | "exec --env") kind=nothing ;;
            "update -r" | "update --repository") kind=nothing ;;
            "update --settle") kind=nothing ;;
            "update --attempts") kind=nothing ;;
            "update --data") kind='words keep copy' ;;
            "update --reference") kind=nothing ;;
            "updates --acknowledge") kind=nothing ;;
            "updates --cancel") kind=nothing ;;
            "notifications -n" | "notifications --number") kind=nothing ;;
            "events -n" | "events --number") kind=nothing ;;
            "inspect -f" | "inspect --format") kind='words table wide json' ;;
            "stop -t" | "stop --timeout") kind=nothing ;;
            "stop -s" | "stop --signal") kind=nothing ;;
            "wait --until") kind='words ready exit' ;;
            "wait -t" | "wait --timeout") kind=nothing ;;
            "top --sort") kind='words cpu memory name processes uptime' ;;
            "top -n" | "top --iterations") kind=nothing ;;
            "top -d" | "top --delay") kind=nothing ;;
            "completion -s" | "completion --shell") kind='words bash fish zsh' ;;
            "completion -o" | "completion --output") kind=files ;;
            *" -"*) ;;
            *) if [[ -z $command ]]; then command=$word; else position=$((position + 1)); fi ;;
        esac
    done
    if [[ -z $kind && $current == -* ]]; then
        case $command in
            '') kind='words -h --help -V --version -u --url -j --json --trace -t --timeout' ;;
            list | ls) kind='words -h --help -f --format' ;;
            repositories | repos) kind='words -h --help' ;;
            mount) kind='words -h --help' ;;
            umount) kind='words -h --help' ;;
            start) kind='words -h --help -w --wait --with-dependencies -t --timeout' ;;
            explain) kind='words -h --help' ;;
            kill) kind='words -h --help' ;;
            exec) kind='words -h --help -t --tty -T --no-tty -e --env' ;;
            install) kind='words -h --help' ;;
            uninstall) kind='words -h --help -w --wipe' ;;
            update) kind='words -h --help -w --wait -r --repository --settle --attempts --allow-downgrade --force --data --reference' ;;
            updates) kind='words -h --help --acknowledge --cancel' ;;
            shutdown) kind='words -h --help' ;;
            notifications) kind='words -h --help -n --number' ;;
            events) kind='words -h --help -n --number' ;;
            inspect) kind='words -h --help -f --format' ;;
            logs) kind='words -h --help -f --follow --time' ;;
            token) kind='words -h --help' ;;
            verify-token) kind='words -h --help' ;;
            ident) kind='words -h --help' ;;
            stop) kind='words -h --help -t --timeout -s --signal' ;;
            reset) kind='words -h --help' ;;
            wait) kind='words -h --help --until --boot -t --timeout' ;;
            top) kind='words -h --help --sort -n --iterations -d --delay' ;;
            check) kind='words -h --help -q --quiet' ;;
            seccomp) kind='words -h --help --no-default-profile' ;;
            completion) kind='words -h --help -s --shell -o --output' ;;
            help) kind='words -h --help' ;;
        esac
    elif [[ -z $kind ]]; then
        case "$command $position" in
            " 0") kind='words list ls repositories repos mount umount start explain kill exec install uninstall update updates shutdown notifications events inspect logs token verify-token ident stop reset wait top check seccomp completion help' ;;
            "mount "*) kind=containers ;;
            "umount "*) kind=containers ;;
            "start "0) kind=containers ;;
            "explain "0) kind=containers ;;
            "kill "0) kind=containers ;;
            "exec "0) kind=containers ;;
            "install "0) kind=files ;;
            "install "1) kind=repositories ;;
            "uninstall "0) kind=containers ;;
            "update "0) kind=files ;;
            "inspect "0) kind=containers ;;
            "logs "0) kind=containers ;;
            "stop "0) kind=containers ;;
            "reset "0) kind=containers ;;
            "wait "*) kind=containers ;;
            "seccomp "0) kind=files ;;
            "help "0) kind='words list ls repositories repos mount umount start explain kill exec install uninstall update updates shutdown notifications events inspect logs token verify-token ident stop reset wait top check seccomp completion help' ;;
            *) ;;
        esac
    fi
    COMPREPLY=()
    case $kind in
        containers | repositories) _nstar_names "$kind" ;;
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

complete -F _nstar nstar
