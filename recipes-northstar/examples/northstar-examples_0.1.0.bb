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

# Those that need nothing but the shell and Python of the image. The first one is what the class packs itself.
NPK_EXAMPLES = "console cpueater crashing custom ferris hello-ferris hello-resource inspect memeater message-0.0.1 \
                message-0.0.2 netns persistence seccomp sockets test-container test-resource token-client token-server"
NPK_MANIFEST = "${S}/examples/hello-world/manifest.yaml"
NPK_ROOT = "${WORKDIR}/hello-world"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

northstar_example_root() {
    cp -R ${S}/examples/$1/root/. $2
    rm -f $2/.gitkeep
    if grep -q ' /usr: { type: bind' ${S}/examples/$1/manifest.yaml; then
        for link in bin lib lib64 sbin; do
            ln -s usr/$link $2/$link
        done
    fi
}

do_install() {
    rm -rf ${NPK_ROOT}
    mkdir -p ${NPK_ROOT}
    northstar_example_root hello-world ${NPK_ROOT}
}

pack_others() {
    for name in ${NPK_EXAMPLES}; do
        root=${WORKDIR}/example-root
        rm -rf $root
        mkdir -p $root
        northstar_example_root $name $root
        key="--key ${NPK_KEY_FILE}"
        [ "${NPK_UNSIGNED}" != 1 ] || key=
        sextant pack --manifest-path ${S}/examples/$name/manifest.yaml --root $root $key \
            --compression ${NPK_COMPRESSION} --out ${NPK_OUT}
    done
    install -m 0644 ${NPK_OUT}/*.npk ${D}${NPK_REPOSITORY}/
}
do_npk[postfuncs] += "pack_others"

PACKAGES = "${PN}-npk"
RDEPENDS:${PN}-npk = "northstar"
