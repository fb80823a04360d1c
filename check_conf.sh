#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tells whether a kernel can run Northstar, and what does not work without it.
#
#   check_conf.sh [-q] [CONFIG]
#
# CONFIG is a kernel configuration, also compressed with gzip; without it that of the running kernel is read
# (/proc/config.gz, /lib/modules/*/config, /boot/config-*), and the features of the running kernel are tried as well.
# -q prints problems only. Exit code 0: everything that is needed is there, 1: something is missing.
#
# The list of options is northstar.cfg, the kernel fragment of the image builders; the environment variable
# NORTHSTAR_FRAGMENT may name another file. NORTHSTAR_ROOT is a directory in place of / for what is read of
# the running kernel.

here=$(dirname "$0")
root=${NORTHSTAR_ROOT:-}
quiet=
missing=0
wishes=0

while getopts qh option; do
    case $option in
        q) quiet=yes ;;
        *)
            sed -n '3,14s/^# \{0,1\}//p' "$0"
            [ "$option" = h ]
            exit
            ;;
    esac
done
shift $((OPTIND - 1))

say() {
    [ -n "$quiet" ] || echo "$*"
}

# problem NEEDED FEATURE WHAT EFFECT
problem() {
    if [ "$1" = needed ]; then
        missing=$((missing + 1))
        echo "MISSING   $2: $3: $4"
    else
        wishes=$((wishes + 1))
        echo "optional  $2: $3: $4"
    fi
}

find_fragment() {
    for file in "${NORTHSTAR_FRAGMENT:-}" "$here/recipes-northstar/linux/files/northstar.cfg" \
        "$here/../share/northstar/northstar.cfg" /usr/share/northstar/northstar.cfg; do
        if [ -n "$file" ] && [ -r "$file" ]; then
            echo "$file"
            return
        fi
    done
}

find_config() {
    for file in "$root/proc/config.gz" "$root/lib/modules/$(uname -r)/config" "$root/boot/config-$(uname -r)"; do
        if [ -r "$file" ]; then
            echo "$file"
            return
        fi
    done
}

read_config() {
    case $1 in
        *.gz) gzip -dc "$1" || zcat "$1" ;;
        *) cat "$1" ;;
    esac
}

check_options() {
    values=$(read_config "$1") || {
        echo "$0: cannot read $1" >&2
        exit 1
    }
    feature=
    need=needed
    effect=
    while read -r line; do
        case $line in
            "## "*)
                line=${line#"## "}
                feature=${line%%:*}
                effect=${line#*: }
                need=needed
                case $feature in
                    *" (optional)")
                        need=optional
                        feature=${feature%" (optional)"}
                        ;;
                esac
                ;;
            CONFIG_*=*)
                check_option "${line%%=*}"
                ;;
        esac
    done < "$2"
}

check_option() {
    case "
$values
" in
        *"
$1=y
"* | *"
$1=m
"*) say "ok        $feature: $1" ;;
        *) problem "$need" "$feature" "$1" "$effect" ;;
    esac
}

# live NEEDED FEATURE WHAT EFFECT COMMAND...
live() {
    need=$1 feature=$2 what=$3 effect=$4
    shift 4
    if "$@" >/dev/null 2>&1; then
        say "ok        $feature: $what"
    else
        problem "$need" "$feature" "$what" "$effect"
    fi
}

# The module of a feature may be loaded when it is needed first.
has_module() {
    grep -q "/$1\.ko" "$root/lib/modules/$(uname -r)/modules.dep"
}

has_filesystem() {
    grep -qw "$1" "$root/proc/filesystems" || has_module "$1"
}

has_loop() {
    test -c "$root/dev/loop-control" || has_module loop
}

has_device_mapper() {
    grep -qw device-mapper "$root/proc/misc" || has_module dm-mod
}

has_verity() {
    test -e "$root/sys/module/dm_verity" || has_module dm-verity
}

has_cgroup_controllers() {
    grep -q '[a-z]' "$root/sys/fs/cgroup/cgroup.controllers" || grep -q '^memory.*1$' "$root/proc/cgroups"
}

check_live() {
    live needed loop /dev/loop-control "packages cannot be mounted" has_loop
    live needed device-mapper "misc device device-mapper" "repositories with a key are refused" has_device_mapper
    live needed device-mapper "dm-verity" "repositories with a key are refused" has_verity
    for name in squashfs tmpfs proc sysfs; do
        live needed "$name" "file system $name" "containers cannot be started" has_filesystem "$name"
    done
    for name in pid mnt ipc uts net; do
        live needed namespaces "namespace $name" "containers cannot be started" test -e "$root/proc/self/ns/$name"
    done
    live needed seccomp "system call filters" "containers with a filter cannot be started" \
        grep -q '^Seccomp_filters\|^Seccomp:' "$root/proc/self/status"
    live optional cgroups "file system cgroup2" "limits and statistics are not available" has_filesystem cgroup2
    live optional cgroups "memory controller" "limits and statistics are not available" has_cgroup_controllers
    if [ -e "$root/sys/fs/cgroup/cgroup.controllers" ]; then
        say "info      cgroups: version 2 at /sys/fs/cgroup: $(cat "$root/sys/fs/cgroup/cgroup.controllers")"
    elif [ -e "$root/sys/fs/cgroup/memory" ]; then
        say "info      cgroups: version 1"
    else
        say "info      cgroups: not mounted at /sys/fs/cgroup"
    fi
}

fragment=$(find_fragment)
if [ -z "$fragment" ]; then
    echo "$0: northstar.cfg is not found, set NORTHSTAR_FRAGMENT" >&2
    exit 1
fi
if [ $# -gt 0 ]; then
    if [ ! -r "$1" ]; then
        echo "$0: cannot read $1" >&2
        exit 1
    fi
    check_options "$1" "$fragment"
else
    config=$(find_config)
    if [ -n "$config" ]; then
        say "reading $config"
        check_options "$config" "$fragment"
    else
        echo "optional  config-in-proc: no /proc/config.gz, no file in /lib/modules or /boot: options are not checked"
        wishes=$((wishes + 1))
    fi
    check_live
fi

if [ "$missing" -gt 0 ]; then
    echo "$missing needed and $wishes optional things are missing"
    exit 1
fi
if [ "$wishes" -gt 0 ]; then
    echo "kernel is configured for northstar, $wishes optional things are missing"
else
    echo "kernel is correctly configured for northstar"
fi
