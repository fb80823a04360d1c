#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same in a shell; systemd-notify comes with systemd.
set -eu
systemd-notify --status="loading"
sleep 3
systemd-notify --ready --status="waiting for work"
echo "ready"
while sleep 5; do
    systemd-notify --status="alive at $(date +%T)"
done
