# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Examples of Northstar containers"
DESCRIPTION = "Small signed containers, each of which shows one ability of the runtime."
HOMEPAGE = "https://github.com/esrlabs/northstar"
SECTION = "base"
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
python npk_pack() {
    import npk

    try:
        npk.pack(d, [
            "env", "NORTHSTAR_EXAMPLES_SKIP=redis redis-server redis-client",
            d.expand("${S}/examples/build.sh"), *npk.signing_options(d),
            "--out", d.getVar("NPK_OUT"), "--compression", d.getVar("NPK_COMPRESSION"),
        ])
    except npk.NpkError as error:
        bb.fatal(str(error))
}

PACKAGES = "${PN}-npk"
RDEPENDS:${PN}-npk = "northstar"
