# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate from the command line of sextant.

function __sextant_names
    sextant --complete $argv (commandline -opc) 2>/dev/null
end

complete -c sextant -f
complete -c sextant -n __fish_use_subcommand -s h -l help -d 'show this help message and exit'
complete -c sextant -n __fish_use_subcommand -s V -l version -d 'show program\'s version number and exit'
complete -c sextant -n __fish_use_subcommand -a 'pack' -d 'make a package'
complete -c sextant -n __fish_use_subcommand -a 'unpack' -d 'take a package apart'
complete -c sextant -n __fish_use_subcommand -a 'inspect' -d 'show a package'
complete -c sextant -n __fish_use_subcommand -a 'gen-key' -d 'make a key pair'
complete -c sextant -n __fish_use_subcommand -a 'init' -d 'make a container to begin with'
complete -c sextant -n __fish_use_subcommand -a 'schema' -d 'print the JSON schema of manifests'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s h -l help -d 'show this help message and exit'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s m -l manifest-path -r -F -d 'manifest in YAML, JSON or TOML'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s r -l root -r -f -a '(__fish_complete_directories)' -d 'root of the container (default: an empty one)'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s i -l image -r -F -d 'squashfs image to be used as it is'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s k -l key -r -F -d 'private key (default: unsigned)'
complete -c sextant -n '__fish_seen_subcommand_from pack' -l sign-command -r -f -d 'command of the shell that signs in place of a key: it reads the bytes to sign from its standard input and writes the Ed25519 signature (64 bytes, or base64) to its standard output'
complete -c sextant -n '__fish_seen_subcommand_from pack' -l public-key -r -F -d 'the signature has to fit to it; needed with --sign-command'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s o -l out -r -F -d 'directory or file'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s c -l compression -r -f -a 'none gzip lzo xz zstd' -d 'compression of the image (gzip)'
complete -c sextant -n '__fish_seen_subcommand_from pack' -s b -l block-size -r -f -d 'block size of the image in bytes, a power of two from 4096 to 1048576'
complete -c sextant -n '__fish_seen_subcommand_from pack' -l mksquashfs -r -F -d 'program to run (mksquashfs)'
complete -c sextant -n '__fish_seen_subcommand_from pack' -l clones -r -f -d 'make N packages <name>-<i> in the directory given with --out; not for resources'
complete -c sextant -n '__fish_seen_subcommand_from unpack' -s h -l help -d 'show this help message and exit'
complete -c sextant -n '__fish_seen_subcommand_from unpack' -s n -l npk -r -F -d 'package'
complete -c sextant -n '__fish_seen_subcommand_from unpack' -s o -l out -r -f -a '(__fish_complete_directories)' -d 'directory, made if missing'
complete -c sextant -n '__fish_seen_subcommand_from unpack' -l unsquashfs -r -F -d 'program (unsquashfs)'
complete -c sextant -n '__fish_seen_subcommand_from inspect' -s h -l help -d 'show this help message and exit'
complete -c sextant -n '__fish_seen_subcommand_from inspect' -s s -l short -d 'one line with identity and version'
complete -c sextant -n '__fish_seen_subcommand_from inspect' -s k -l key -r -F -d 'verify the package with this public key first'
complete -c sextant -n '__fish_seen_subcommand_from inspect' -l unsquashfs -r -F -d 'program (unsquashfs)'
complete -c sextant -n '__fish_seen_subcommand_from inspect' -F
complete -c sextant -n '__fish_seen_subcommand_from gen-key' -s h -l help -d 'show this help message and exit'
complete -c sextant -n '__fish_seen_subcommand_from gen-key' -s n -l name -r -f -d 'base name of the key files'
complete -c sextant -n '__fish_seen_subcommand_from gen-key' -s o -l out -r -f -a '(__fish_complete_directories)' -d 'existing directory'
complete -c sextant -n '__fish_seen_subcommand_from init' -s h -l help -d 'show this help message and exit'
complete -c sextant -n '__fish_seen_subcommand_from init' -l shell -d 'a shell script, with the programs of the device (default)'
complete -c sextant -n '__fish_seen_subcommand_from init' -l python -d 'a Python script, with the device\'s Python'
complete -c sextant -n '__fish_seen_subcommand_from init' -l static-binary -r -F -d 'a statically linked program of the device\'s architecture'
complete -c sextant -n '__fish_seen_subcommand_from init' -s o -l out -r -f -a '(__fish_complete_directories)' -d 'directory to make (default: NAME)'
complete -c sextant -n '__fish_seen_subcommand_from schema' -s h -l help -d 'show this help message and exit'
