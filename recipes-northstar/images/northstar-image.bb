# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Small image with the Northstar runtime and its examples"
DESCRIPTION = "Boots on qemuarm64 and runs the tests of lib/oeqa."
LICENSE = "Apache-2.0"

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "seccomp"

IMAGE_FEATURES += "ssh-server-dropbear"
IMAGE_INSTALL = "packagegroup-core-boot packagegroup-northstar northstar-examples-npk ${CORE_IMAGE_EXTRA_INSTALL}"
IMAGE_FSTYPES ?= "ext4"
IMAGE_ROOTFS_EXTRA_SPACE = "65536"

IMAGE_CLASSES += "testimage"
TEST_SUITES = "ping ssh northstar"

# The public half of the key that signed the containers.
NPK_PUBLIC_KEY_FILE ??= ""
northstar_install_key() {
    if [ -z "${NPK_PUBLIC_KEY_FILE}" ]; then
        bbfatal "NPK_PUBLIC_KEY_FILE is not set: the public key (*.pub) of NPK_KEY_FILE"
    fi
    install -d ${IMAGE_ROOTFS}${sysconfdir}/northstar/keys
    install -m 0644 ${NPK_PUBLIC_KEY_FILE} ${IMAGE_ROOTFS}${sysconfdir}/northstar/keys/northstar.pub
}
ROOTFS_POSTPROCESS_COMMAND += "northstar_install_key"
