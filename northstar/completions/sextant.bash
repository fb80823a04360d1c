# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate from the command line of sextant.
# shellcheck shell=bash

# Names of containers or repositories, one per line.
_sextant_names() {
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$(printf %q "$name")")
    done < <("${words[0]}" --complete "$1" "${words[@]:1}" 2>/dev/null)
}

_sextant() {
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
            "pack -m" | "pack --manifest-path") kind=files ;;
            "pack -r" | "pack --root") kind=directories ;;
            "pack -i" | "pack --image") kind=files ;;
            "pack -k" | "pack --key") kind=files ;;
            "pack --sign-command") kind=nothing ;;
            "pack --public-key") kind=files ;;
            "pack -o" | "pack --out") kind=files ;;
            "pack -c" | "pack --compression") kind='words none gzip lzo xz zstd' ;;
            "pack -b" | "pack --block-size") kind=nothing ;;
            "pack --mksquashfs") kind=files ;;
            "pack --clones") kind=nothing ;;
            "pack --ref") kind=nothing ;;
            "pack --platform") kind=nothing ;;
            "pack --user") kind=nothing ;;
            "pack --max-size") kind=nothing ;;
            "unpack -n" | "unpack --npk") kind=files ;;
            "unpack -o" | "unpack --out") kind=directories ;;
            "unpack --unsquashfs") kind=files ;;
            "inspect -k" | "inspect --key") kind=files ;;
            "inspect --unsquashfs") kind=files ;;
            "sign -k" | "sign --key") kind=files ;;
            "sign --sign-command") kind=nothing ;;
            "sign --public-key") kind=files ;;
            "sign -o" | "sign --out") kind=files ;;
            "gen-key -n" | "gen-key --name") kind=nothing ;;
            "gen-key -o" | "gen-key --out") kind=directories ;;
            "import -o" | "import --out") kind=directories ;;
            "import --ref") kind=nothing ;;
            "import --platform") kind=nothing ;;
            "import --user") kind=nothing ;;
            "import --max-size") kind=nothing ;;
            "import --name") kind=nothing ;;
            "import --version") kind=nothing ;;
            "import -c" | "import --compression") kind='words none gzip lzo xz zstd' ;;
            "import -b" | "import --block-size") kind=nothing ;;
            "import --mksquashfs") kind=files ;;
            "init --static-binary") kind=files ;;
            "init -o" | "init --out") kind=directories ;;
            "lint -r" | "lint --root") kind=directories ;;
            "lint -i" | "lint --image") kind=files ;;
            "lint --host-root") kind=directories ;;
            "lint --arch") kind=nothing ;;
            "lint --unsquashfs") kind=files ;;
            "index -o" | "index --out") kind=files ;;
            *" -"*) ;;
            *) if [[ -z $command ]]; then command=$word; else position=$((position + 1)); fi ;;
        esac
    done
    if [[ -z $kind && $current == -* ]]; then
        case $command in
            '') kind='words -h --help -V --version' ;;
            pack) kind='words -h --help -m --manifest-path -r --root -i --image -k --key --sign-command --public-key -o --out -c --compression -b --block-size --mksquashfs --clones --ref --platform --user --max-size' ;;
            unpack) kind='words -h --help -n --npk -o --out --unsquashfs' ;;
            inspect) kind='words -h --help -s --short -k --key --unsquashfs' ;;
            sign) kind='words -h --help -k --key --sign-command --public-key -o --out --replace' ;;
            gen-key) kind='words -h --help -n --name -o --out' ;;
            import) kind='words -h --help -o --out --ref --platform --user --max-size --name --version -c --compression -b --block-size --mksquashfs' ;;
            init) kind='words -h --help --shell --python --static-binary -o --out' ;;
            explain) kind='words -h --help' ;;
            lint) kind='words -h --help -r --root -i --image --host-root --arch -j --json --rules --unsquashfs' ;;
            index) kind='words -h --help -o --out' ;;
            schema) kind='words -h --help' ;;
        esac
    elif [[ -z $kind ]]; then
        case "$command $position" in
            " 0") kind='words pack unpack inspect sign gen-key import init explain lint index schema' ;;
            "inspect "0) kind=files ;;
            "sign "0) kind=files ;;
            "import "0) kind=files ;;
            "explain "0) kind=files ;;
            "lint "*) kind=files ;;
            "index "0) kind=files ;;
            *) ;;
        esac
    fi
    COMPREPLY=()
    case $kind in
        containers | repositories) _sextant_names "$kind" ;;
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

complete -F _sextant sextant
