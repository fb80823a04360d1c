# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate from the command line of northstar.

function __northstar_names
    northstar --complete $argv (commandline -opc) 2>/dev/null
end

complete -c northstar -f
complete -c northstar -n __fish_use_subcommand -s h -l help -d 'show this help message and exit'
complete -c northstar -n __fish_use_subcommand -s c -l config -r -F -d 'configuration file (northstar.toml)'
complete -c northstar -n __fish_use_subcommand -s d -l disable-mount-namespace -d 'stay in the mount namespace of the caller; mounts left by a crash are swept at the next start'
complete -c northstar -n __fish_use_subcommand -l check -d 'validate the configuration, print what is wrong, and exit'
complete -c northstar -n __fish_use_subcommand -s V -l version -d 'show program\'s version number and exit'
complete -c northstar -n __fish_use_subcommand -a 'try' -d 'try containers in a throw-away runtime'
complete -c northstar -n '__fish_seen_subcommand_from try' -s h -l help -d 'show this help message and exit'
complete -c northstar -n '__fish_seen_subcommand_from try' -s k -l keep -d 'stay when all containers have ended, until Ctrl-C; for updates and restarts'
complete -c northstar -n '__fish_seen_subcommand_from try' -s v -l verbose -d 'show the log of the runtime'
complete -c northstar -n '__fish_seen_subcommand_from try' -F
