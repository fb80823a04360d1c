# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate from the command line of northstar.

complete -c northstar -f
complete -c northstar -s h -l help -d 'show this help message and exit'
complete -c northstar -s c -l config -r -F -d 'configuration file (northstar.toml)'
complete -c northstar -s d -l disable-mount-namespace -d 'stay in the mount namespace of the caller; mounts left by a crash are swept at the next start'
complete -c northstar -l check -d 'validate the configuration, print what is wrong, and exit'
complete -c northstar -s V -l version -d 'show program\'s version number and exit'
