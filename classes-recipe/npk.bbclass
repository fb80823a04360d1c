# SPDX-License-Identifier: Apache-2.0
#
# Makes a signed Northstar package (NPK) of what a recipe installs.
#
#   inherit npk
#
#   SRC_URI += "file://manifest.yaml"
#   NPK_MANIFEST = "${UNPACKDIR}/manifest.yaml"
#   NPK_KEY_FILE = "/secret/vendor.key"          # better: in local.conf or site.conf
#
# The root directory of the container is what do_install puts into ${D}. The package is in DEPLOY_DIR_IMAGE, and in the
# recipe's package ${PN}-npk as ${datadir}/northstar/packages/NAME-VERSION.npk, the repository `system` of
# the image's runtime. For an image of the container, have
#
#   IMAGE_INSTALL:append = " myapplication-npk"
#
# Variables:
#
#   NPK_MANIFEST      manifest of the container; required
#   NPK_KEY_FILE      private key, made by `sextant gen-key`; required
#   NPK_UNSIGNED      "1": no key, and no signature
#   NPK_ROOT          root directory of the container (default: what do_install made; empty: a resource
#                     or container without files of its own)
#   NPK_COMPRESSION   gzip, lzo, xz, zstd or none (default: zstd; the kernel has to know it)
#   NPK_BLOCK_SIZE    block size of the squashfs image in bytes
#
# Packing is reproducible: equal input gives equal bytes.

inherit deploy

NPK_MANIFEST ??= ""
NPK_KEY_FILE ??= ""
NPK_UNSIGNED ??= "0"
NPK_ROOT ??= "${WORKDIR}/npk-root"
NPK_COMPRESSION ??= "zstd"
NPK_BLOCK_SIZE ??= ""
NPK_OUT = "${WORKDIR}/npk"
NPK_REPOSITORY = "${datadir}/northstar/packages"

NPK_MANIFEST[doc] = "Manifest of the container (YAML, JSON or TOML)."
NPK_KEY_FILE[doc] = "Private key that signs the package."
NPK_ROOT[doc] = "Root directory of the container."

DEPENDS:append = " northstar-native squashfs-tools-native"

# A copy is packed: do_npk adds the package itself to ${D}.
python npk_copy_root() {
    import shutil
    root = d.expand("${WORKDIR}/npk-root")
    if d.getVar("NPK_ROOT") != root:
        return
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(d.getVar("D"), root, symlinks=True)
}

python do_npk() {
    import os
    import shutil
    import npk

    out = d.getVar("NPK_OUT")
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    try:
        command = npk.command(d, out)
        bb.process.run(command)
        packages = npk.produced(out)
    except npk.NpkError as error:
        bb.fatal(str(error))
    except bb.process.ExecutionError as error:
        bb.fatal("sextant refused to pack: %s" % (error.stderr or error.stdout))
    repository = d.expand("${D}${NPK_REPOSITORY}")
    os.makedirs(repository, exist_ok=True)
    for name in packages:
        shutil.copy(os.path.join(out, name), repository)
}
do_npk[prefuncs] += "npk_copy_root"
do_npk[dirs] = "${WORKDIR}"
do_npk[fakeroot] = "1"
do_npk[depends] += "virtual/fakeroot-native:do_populate_sysroot"
do_npk[file-checksums] += "${@npk_key_checksum(d)}"
do_npk[vardeps] += "NPK_MANIFEST NPK_ROOT NPK_COMPRESSION NPK_BLOCK_SIZE NPK_UNSIGNED"
do_npk[vardepsexclude] += "NPK_KEY_FILE"
addtask npk after do_install before do_package do_deploy

# Another key makes another package, another path of the same key does not.
def npk_key_checksum(d):
    key = d.getVar("NPK_KEY_FILE")
    return "%s:True" % key if key else ""

do_deploy() {
    install -d ${DEPLOYDIR}
    install -m 0644 ${NPK_OUT}/*.npk ${DEPLOYDIR}/
}
addtask deploy after do_npk before do_build

PACKAGES =+ "${PN}-npk"
FILES:${PN}-npk = "${NPK_REPOSITORY}"
RRECOMMENDS:${PN}-npk = "northstar"
SUMMARY:${PN}-npk = "${SUMMARY} (Northstar container)"
