# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Interface to libseccomp by ctypes"
DESCRIPTION = "Compatible with the Python bindings of libseccomp, without a compiled part."
HOMEPAGE = "https://github.com/cptpcrd/pyseccomp"
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://setup.cfg;beginline=8;endline=8;md5=dfdd1c961decbcd8fa5311ae127a5563"

SRC_URI += "file://0001-find-libseccomp-without-ldconfig-and-compiler.patch"
SRC_URI[sha256sum] = "0d54efacf71bda4bdfd21233f5444b730cbecf593d602f796e6412a8682258bd"

inherit pypi setuptools3 features_check

REQUIRED_DISTRO_FEATURES:class-target = "seccomp"

RDEPENDS:${PN} += "libseccomp python3-core python3-ctypes"
