#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs and signs the examples into the image, and gives it the public key.
#
# NORTHSTAR_KEY  private key (default: made anew for each build directory)
set -eu

target=$1
repository=$(cd "$(dirname "$0")/../../.." && pwd)
key=${NORTHSTAR_KEY:-$BASE_DIR/northstar.key}

if ! command -v sextant >/dev/null; then
    echo "post-build.sh: there is no sextant: set BR2_PACKAGE_HOST_NORTHSTAR" >&2
    exit 1
fi
if [ ! -e "$key" ]; then
    if [ -n "${NORTHSTAR_KEY:-}" ]; then
        echo "post-build.sh: NORTHSTAR_KEY: $key does not exist; sextant gen-key makes a key pair" >&2
        exit 1
    fi
    sextant gen-key --name northstar --out "$BASE_DIR"
fi
install -D -m 0644 "${key%.key}.pub" "$target/etc/northstar/keys/northstar.pub"
NORTHSTAR_ARCH=arm64 NORTHSTAR_EXAMPLES_SKIP="redis redis-server redis-client" \
    "$repository/examples/build.sh" --key "$key" --out "$target/usr/share/northstar/packages"
