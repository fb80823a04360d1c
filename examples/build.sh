#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs and signs all examples.
#
#   examples/build.sh [--key FILE | --sign-command COMMAND --public-key FILE] [--out DIR]
#                     [--stories DIR] [--compression gzip|lzo|xz|zstd|none]
#
# --key           private key (default: examples/example.key, made with its public half if it does not exist)
# --sign-command  signs in place of a key, see sextant pack --help
# --out           directory for the packages (default: build/packages)
# --stories       directory for what is not installed from the beginning: versions that updates go through,
#                 and the scripts that play them (default: build/stories)
#
# NORTHSTAR_EXAMPLES_SKIP: names of examples to leave out, separated by blanks.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
key=$here/example.key
out=$here/../build/packages
stories=$here/../build/stories
compression=gzip
sign_command=
public_key=

while [ $# -gt 0 ]; do
    case $1 in
        --key) key=$2 ;;
        --sign-command) sign_command=$2 ;;
        --public-key) public_key=$2 ;;
        --out) out=$2 ;;
        --stories) stories=$2 ;;
        --compression) compression=$2 ;;
        -h | --help)
            sed -n 's/^# \{0,1\}//p' "$0" | sed 1,2d
            exit 0
            ;;
        *)
            echo "$0: unknown option $1" >&2
            exit 2
            ;;
    esac
    shift 2
done

run_sextant() {
    if command -v sextant >/dev/null; then
        sextant "$@"
    else
        PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" python3 -m northstar.sextant.cli "$@"
    fi
}

mkdir -p "$out"
if [ -n "$sign_command" ]; then
    set -- --sign-command "$sign_command" --public-key "$public_key"
else
    set -- --key "$key"
fi
if [ -z "$sign_command" ] && [ ! -e "$key" ]; then
    directory=$(dirname "$key")
    run_sextant gen-key --name "$(basename "$key" .key)" --out "$directory"
    echo "made a key pair: $key and ${key%.key}.pub"
fi
for manifest in "$here"/*/manifest.yaml "$here"/*/*/manifest.yaml; do
    example=$(dirname "$manifest")
    target=$out
    if [ "$(dirname "$example")" != "$here" ]; then
        story=$(dirname "$example")
        target=$stories/$(basename "$story")
        mkdir -p "$target"
        cp "$story/story" "$target"
    fi
    case " ${NORTHSTAR_EXAMPLES_SKIP:-} " in
        *" $(basename "$example") "*) continue ;;
    esac
    root=$(mktemp -d)
    chmod 755 "$root"
    cp -R "$example/root/." "$root"
    rm -f "$root/.gitkeep"
    if [ -x "$example/prepare" ]; then
        "$example/prepare" "$root"
    fi
    run_sextant pack -m "$manifest" -r "$root" "$@" -o "$target" -c "$compression"
    rm -r "$root"
    echo "packed $(basename "$example")"
done
