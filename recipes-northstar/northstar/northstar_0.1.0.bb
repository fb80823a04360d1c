# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Embedded container runtime"
DESCRIPTION = "Verifies signed packages with dm-verity, mounts them and starts them as ordinary Linux processes."
HOMEPAGE = "https://github.com/esrlabs/northstar"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

FILESEXTRAPATHS:prepend := "${NORTHSTAR_LAYERDIR}:"
SRC_URI = "file://northstar;subdir=${BP} \
           file://pyproject.toml;subdir=${BP} \
           file://setup.py;subdir=${BP} \
           file://README.md;subdir=${BP} \
           file://LICENSE;subdir=${BP} \
           file://check_conf.sh;subdir=${BP} \
           file://rootfs-overlay;subdir=${BP} \
           file://recipes-northstar/linux/files/northstar.cfg;subdir=${BP} \
           file://tests/integration;subdir=${BP} \
           file://examples/test-container;subdir=${BP} \
           file://run-ptest \
           "
S = "${UNPACKDIR}/${BP}"

inherit python_setuptools_build_meta features_check ptest update-rc.d systemd useradd

REQUIRED_DISTRO_FEATURES:class-target = "seccomp"
# The engine, which is compiled, knows these two.
COMPATIBLE_HOST = "(x86_64|aarch64).*-linux"

INITSCRIPT_PACKAGES = "${PN} ${PN}-agent"
INITSCRIPT_NAME:${PN} = "northstar"
INITSCRIPT_PARAMS:${PN} = "defaults 80 20"
# It does nothing until /etc/default/northstar-agent says NORTHSTAR_AGENT=yes.
INITSCRIPT_NAME:${PN}-agent = "northstar-agent"
INITSCRIPT_PARAMS:${PN}-agent = "defaults 85 15"
SYSTEMD_PACKAGES = "${PN} ${PN}-agent"
SYSTEMD_SERVICE:${PN} = "northstar.service"
SYSTEMD_SERVICE:${PN}-agent = "northstar-agent.service northstar-agent-poll.timer"
SYSTEMD_AUTO_ENABLE:${PN}-agent = "disable"

USERADD_PACKAGES = "${PN}-agent"
USERADD_PARAM:${PN}-agent = "--system --home-dir ${localstatedir}/lib/northstar-agent --no-create-home \
                             --shell /sbin/nologin --user-group northstar-agent"

do_install:append:class-target() {
    install -d ${D}${sysconfdir}/northstar/keys ${D}${datadir}/northstar/packages ${D}${sbindir}
    install -m 0644 ${S}/rootfs-overlay/etc/northstar/northstar.toml ${D}${sysconfdir}/northstar/
    install -m 0644 ${S}/rootfs-overlay/etc/northstar/agent.toml ${D}${sysconfdir}/northstar/
    install -m 0755 ${S}/check_conf.sh ${D}${sbindir}/
    install -D -m 0644 ${S}/northstar/completions/nstar.bash ${D}${datadir}/bash-completion/completions/nstar
    install -m 0644 ${S}/recipes-northstar/linux/files/northstar.cfg ${D}${datadir}/northstar/
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -d ${D}${sysconfdir}/init.d
        install -m 0755 ${S}/rootfs-overlay/etc/init.d/northstar ${D}${sysconfdir}/init.d/
        install -m 0755 ${S}/rootfs-overlay/etc/init.d/northstar-agent ${D}${sysconfdir}/init.d/
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -d ${D}${systemd_system_unitdir} ${D}${nonarch_libdir}/tmpfiles.d
        install -m 0644 ${S}/rootfs-overlay/usr/lib/systemd/system/*.service ${D}${systemd_system_unitdir}/
        install -m 0644 ${S}/rootfs-overlay/usr/lib/tmpfiles.d/northstar.conf ${D}${nonarch_libdir}/tmpfiles.d/
        for unit in northstar-agent.service northstar-agent-poll.service northstar-agent-poll.timer; do
            install -m 0644 ${S}/rootfs-overlay/usr/lib/systemd/system/$unit ${D}${systemd_system_unitdir}/
        done
        install -m 0644 ${S}/rootfs-overlay/usr/lib/tmpfiles.d/northstar-agent.conf ${D}${nonarch_libdir}/tmpfiles.d/
    fi
}

do_install_ptest() {
    install -d ${D}${PTEST_PATH}/tests ${D}${PTEST_PATH}/examples
    cp -r ${S}/tests/integration ${D}${PTEST_PATH}/tests/
    cp -r ${S}/examples/test-container ${D}${PTEST_PATH}/examples/
}

PACKAGES =+ "${PN}-nstar ${PN}-sextant ${PN}-agent"

SUMMARY:${PN}-nstar = "Command line client of the Northstar runtime"
SUMMARY:${PN}-sextant = "Packs, signs and inspects Northstar packages"
SUMMARY:${PN}-agent = "Takes updates from a fleet server"

FILES:${PN}-nstar = "${bindir}/nstar ${PYTHON_SITEPACKAGES_DIR}/northstar/nstar \
                     ${datadir}/bash-completion"
FILES:${PN}-sextant = "${bindir}/sextant ${PYTHON_SITEPACKAGES_DIR}/northstar/sextant \
                       ${PYTHON_SITEPACKAGES_DIR}/northstar/lint \
                       ${PYTHON_SITEPACKAGES_DIR}/northstar/fleet ${bindir}/northstar-fleet \
                       ${PYTHON_SITEPACKAGES_DIR}/northstar/oci"
FILES:${PN}-agent = "${bindir}/northstar-agent ${PYTHON_SITEPACKAGES_DIR}/northstar/agent \
                     ${sysconfdir}/northstar/agent.toml ${sysconfdir}/init.d/northstar-agent \
                     ${systemd_system_unitdir}/northstar-agent* \
                     ${nonarch_libdir}/tmpfiles.d/northstar-agent.conf"
# The unit about the boot is enabled by images that mark boots as good.
FILES:${PN} += "${nonarch_libdir}/tmpfiles.d ${systemd_system_unitdir}/northstar-boot-complete.service"
CONFFILES:${PN} = "${sysconfdir}/northstar/northstar.toml"
CONFFILES:${PN}-agent = "${sysconfdir}/northstar/agent.toml"

RDEPENDS:${PN} = "python3-compression \
                  python3-core \
                  python3-crypt \
                  python3-ctypes \
                  python3-fcntl \
                  python3-io \
                  python3-json \
                  python3-math \
                  python3-netclient \
                  python3-pynacl \
                  python3-pyyaml \
                  python3-resource \
                  python3-shell \
                  python3-tomllib \
                  "
RDEPENDS:${PN}:class-native = "python3-pynacl-native python3-pyyaml-native"
RDEPENDS:${PN}-nstar = "${PN} python3-terminal"
RDEPENDS:${PN}-sextant = "${PN} squashfs-tools"
RDEPENDS:${PN}-agent = "${PN} python3-datetime python3-mmap python3-netclient python3-tomllib"
RDEPENDS:${PN}-ptest = "${PN}-nstar ${PN}-sextant busybox python3-asyncio python3-pytest python3-unittest-automake-output"

RRECOMMENDS:${PN}:class-target = "kernel-module-dm-mod kernel-module-dm-verity kernel-module-loop kernel-module-squashfs"
RRECOMMENDS:${PN}:class-native = ""
# The head line of nstar top.
RRECOMMENDS:${PN}-nstar:class-target = "python3-psutil"

BBCLASSEXTEND = "native nativesdk"
