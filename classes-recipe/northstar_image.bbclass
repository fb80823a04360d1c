# SPDX-License-Identifier: Apache-2.0
#
# For images with containers: installs the public key of the repositories, and checks every package of the image.
#
#   inherit core-image northstar_image
#   IMAGE_INSTALL:append = " packagegroup-northstar myapplication-npk"
#   NPK_PUBLIC_KEY_FILE = "/path/to/vendor.pub"       # better: in local.conf or site.conf
#
# The build stops if a package is damaged or not signed with the private half of that key, or if two packages are the same
# version of the same container: the runtime of the device would refuse them.

inherit features_check

REQUIRED_DISTRO_FEATURES += "northstar seccomp"
COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

NPK_PUBLIC_KEY_FILE ??= ""
NPK_PUBLIC_KEY_FILE[doc] = "Public key that the packages of the image are signed for."

python northstar_install_key() {
    import npk

    try:
        npk.install_public_key(d, d.expand("${IMAGE_ROOTFS}${sysconfdir}/northstar/keys"))
    except npk.NpkError as error:
        bb.fatal(str(error))
}

python northstar_check_packages() {
    import npk

    repository = d.expand("${IMAGE_ROOTFS}${datadir}/northstar/packages")
    problems = npk.problems_of_packages(repository, d.getVar("NPK_PUBLIC_KEY_FILE"))
    if problems:
        bb.fatal("the runtime would refuse packages of this image:\n" + "\n".join(problems))
}

northstar_install_key[doc] = "Installs the public key of the repositories"
northstar_check_packages[doc] = "Verifies the packages of the image"
ROOTFS_POSTPROCESS_COMMAND += "northstar_install_key northstar_check_packages"
northstar_install_key[vardepsexclude] += "NPK_PUBLIC_KEY_FILE"
northstar_check_packages[vardepsexclude] += "NPK_PUBLIC_KEY_FILE"
do_rootfs[depends] += "northstar-native:do_populate_sysroot"
do_rootfs[file-checksums] += "${@'%s:True' % d.getVar('NPK_PUBLIC_KEY_FILE') if d.getVar('NPK_PUBLIC_KEY_FILE') else ''}"
