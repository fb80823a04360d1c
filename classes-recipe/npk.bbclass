# SPDX-License-Identifier: Apache-2.0
#
# Makes a signed Northstar package (NPK) of the runtime files of a recipe.
#
#   inherit npk
#
#   SRC_URI += "file://manifest.yaml"
#   NPK_MANIFEST = "${UNPACKDIR}/manifest.yaml"
#   NPK_KEY_FILE = "/secret/vendor.key"          # better: in local.conf or site.conf
#
# The root directory of the container is what do_package puts into the recipe's package ${PN}: FILES:${PN}, stripped,
# without headers, static libraries and documentation. The NPK is in DEPLOY_DIR_IMAGE, and in the recipe's package
# ${PN}-npk as ${datadir}/northstar/packages/NAME-VERSION.npk, the repository `system` of the image's runtime. For an
# image of the container, have
#
#   IMAGE_INSTALL:append = " myapplication-npk"
#
# Variables:
#
#   NPK_MANIFEST         manifest of the container; required
#   NPK_KEY_FILE         private key, made by `sextant gen-key`; this or NPK_SIGN_COMMAND is required
#   NPK_SIGN_COMMAND     command that signs in place of a key file: it reads the bytes to sign from its standard
#                        input, and writes the Ed25519 signature (64 bytes, or base64) to its standard output
#   NPK_PUBLIC_KEY_FILE  public key; the signature of NPK_SIGN_COMMAND is checked against it
#   NPK_UNSIGNED         "1": no key, and no signature
#   NPK_PACKAGES         packages of the recipe whose files are those of the container (default: ${PN})
#   NPK_ROOT             root directory of the container, in place of the files of packages; empty: a resource or
#                        container without files of its own
#   NPK_COMPRESSION      gzip, lzo, xz, zstd or none (default: zstd; the kernel has to know it)
#   NPK_BLOCK_SIZE       block size of the squashfs image in bytes
#
# A command finds only programs that are in HOSTTOOLS or have an absolute path, and no network, unless the recipe has
# do_package[network] = "1". Which key it uses is not seen by BitBake: another public key packs anew, another command does not.
#
# Packing is reproducible: equal input gives equal bytes.

inherit deploy

NPK_MANIFEST ??= ""
NPK_KEY_FILE ??= ""
NPK_SIGN_COMMAND ??= ""
NPK_PUBLIC_KEY_FILE ??= ""
NPK_UNSIGNED ??= "0"
NPK_PACKAGES ??= "${PN}"
NPK_FILES = "${WORKDIR}/npk-root"
NPK_ROOT ??= "${NPK_FILES}"
NPK_COMPRESSION ??= "zstd"
NPK_BLOCK_SIZE ??= ""
NPK_OUT = "${WORKDIR}/npk"
NPK_REPOSITORY = "${datadir}/northstar/packages"
NPK_DESTINATION = "${PKGDEST}/${PN}-npk${NPK_REPOSITORY}"

NPK_MANIFEST[doc] = "Manifest of the container (YAML, JSON or TOML)."
NPK_KEY_FILE[doc] = "Private key that signs the package."
NPK_SIGN_COMMAND[doc] = "Command that signs the package in place of a private key."
NPK_PUBLIC_KEY_FILE[doc] = "Public key that the signature has to fit to; the image's runtime gets it."
NPK_UNSIGNED[doc] = "1: the package is not signed."
NPK_PACKAGES[doc] = "Packages of the recipe whose files are those of the container."
NPK_ROOT[doc] = "Root directory of the container."
NPK_COMPRESSION[doc] = "Compression of the squashfs image."
NPK_BLOCK_SIZE[doc] = "Block size of the squashfs image in bytes."

# The runtime is for 64 bit machines; `allarch` is what recipes without compiled files say.
COMPATIBLE_HOST = "(aarch64|x86_64|allarch).*-linux"

DEPENDS:append = " northstar-native squashfs-tools-native"

# Part of do_package: files have been stripped and split by then, and ${D} stays what do_install made. What is
# made here becomes part of the package ${PN}-npk like any other file.
PACKAGESPLITFUNCS:append = " npk_pack"

python npk_pack() {
    import npk

    try:
        npk.collect_files(d)
        npk.pack(d, npk.command(d))
    except npk.NpkError as error:
        bb.fatal(str(error))
}
npk_pack[doc] = "Packs and signs the container"
npk_pack[vardeps] += "NPK_MANIFEST NPK_PACKAGES NPK_ROOT NPK_COMPRESSION NPK_BLOCK_SIZE NPK_UNSIGNED"
npk_pack[vardepsexclude] += "NPK_KEY_FILE NPK_PUBLIC_KEY_FILE NPK_SIGN_COMMAND"
do_package[file-checksums] += "${@npk_key_checksums(d)}"

# For whoever calls it by name.
fakeroot python do_npk() {
    bb.note("do_package has packed the container")
}
do_npk[doc] = "Packs and signs the container, by do_package"
do_npk[noexec] = "1"
addtask npk after do_package before do_deploy

# Another key makes another package, another path of the same key does not.
def npk_key_checksums(d):
    files = [d.getVar("NPK_KEY_FILE")]
    if d.getVar("NPK_SIGN_COMMAND"):
        files.append(d.getVar("NPK_PUBLIC_KEY_FILE"))
    return " ".join("%s:True" % file for file in files if file)

do_deploy() {
    install -d ${DEPLOYDIR}
    install -m 0644 ${NPK_DESTINATION}/*.npk ${DEPLOYDIR}/
}
addtask deploy after do_package before do_build

PACKAGES =+ "${PN}-npk"
SUMMARY:${PN}-npk = "${SUMMARY} (Northstar container)"
FILES:${PN}-npk = "${NPK_REPOSITORY}"
RRECOMMENDS:${PN}-npk = "northstar"
