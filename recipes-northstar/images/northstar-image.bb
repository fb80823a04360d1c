# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Northstar runtime with its examples"
DESCRIPTION = "Small image that boots on qemuarm64 and runs the tests of lib/oeqa."
SECTION = "base"
LICENSE = "Apache-2.0"

inherit core-image northstar_image

IMAGE_FEATURES += "ssh-server-dropbear"
IMAGE_INSTALL = "packagegroup-core-boot packagegroup-northstar northstar-examples-npk ${CORE_IMAGE_EXTRA_INSTALL}"
IMAGE_FSTYPES ?= "ext4"
IMAGE_ROOTFS_EXTRA_SPACE = "65536"

IMAGE_CLASSES += "testimage"
TEST_SUITES = "ping ssh northstar"
