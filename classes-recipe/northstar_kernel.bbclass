# SPDX-License-Identifier: Apache-2.0
#
# For kernel recipes: adds the options that the runtime needs, and stops the build if the kernel does not have them.
#
#   inherit northstar_kernel
#
# linux-yocto inherits it if `northstar` is in DISTRO_FEATURES. The options are a configuration fragment in SRC_URI. Recipes
# that do not merge fragments need them in their configuration; the check names those that are missing, and what does
# not work without them. NORTHSTAR_KERNEL_CHECK = "warn" makes warnings of the errors.

FILESEXTRAPATHS:prepend := "${NORTHSTAR_LAYERDIR}/recipes-northstar/linux/files:"
SRC_URI += "file://northstar.cfg"

NORTHSTAR_KERNEL_CHECK ??= "fatal"
NORTHSTAR_KERNEL_CHECK[doc] = "What a missing kernel option is: fatal, or warn."

python northstar_check_kernel() {
    import npk

    try:
        missing = npk.missing_kernel_options(d.getVar("NORTHSTAR_LAYERDIR"), d.expand("${B}/.config"))
    except npk.NpkError as error:
        bb.fatal(str(error))
    if missing:
        text = "the kernel cannot run Northstar:\n" + "\n".join(missing)
        if d.getVar("NORTHSTAR_KERNEL_CHECK") == "warn":
            bb.warn(text)
        else:
            bb.fatal(text)
}
northstar_check_kernel[doc] = "Checks the options that the runtime needs"
northstar_check_kernel[vardepsexclude] += "NORTHSTAR_LAYERDIR"
do_configure[postfuncs] += "northstar_check_kernel"
do_configure[file-checksums] += "${NORTHSTAR_LAYERDIR}/check_conf.sh:True"
