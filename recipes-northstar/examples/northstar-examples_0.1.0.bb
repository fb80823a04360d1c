# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Examples of Northstar containers"
DESCRIPTION = "Small signed containers, each of which shows one ability of the runtime."
HOMEPAGE = "https://github.com/esrlabs/northstar"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

FILESEXTRAPATHS:prepend := "${NORTHSTAR_LAYERDIR}:"
SRC_URI = "file://examples;subdir=${BP} \
           file://LICENSE;subdir=${BP} \
           "
S = "${UNPACKDIR}/${BP}"

inherit allarch npk

NPK_ROOT = ""

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

# In place of the class's own: all of them at once, but for those that come from Debian.
fakeroot do_npk() {
    if [ ! -f "${NPK_KEY_FILE}" ]; then
        bbfatal "NPK_KEY_FILE: '${NPK_KEY_FILE}' does not exist; sextant gen-key makes a key pair"
    fi
    rm -rf ${NPK_OUT}
    NORTHSTAR_EXAMPLES_SKIP="redis redis-server redis-client" \
        ${S}/examples/build.sh --key ${NPK_KEY_FILE} --out ${NPK_OUT} --compression ${NPK_COMPRESSION}
    install -d ${D}${NPK_REPOSITORY}
    install -m 0644 ${NPK_OUT}/*.npk ${D}${NPK_REPOSITORY}/
}

PACKAGES = "${PN}-npk"
RDEPENDS:${PN}-npk = "northstar"
