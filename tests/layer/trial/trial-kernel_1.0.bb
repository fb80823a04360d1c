# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Kernel of the tests, as far as it is configured"
LICENSE = "CLOSED"

TRIAL_CONFIG ?= ""
TRIAL ?= "1"

do_configure() {
    : ${TRIAL}
    cp ${TRIAL_CONFIG} ${B}/.config
}

inherit northstar_kernel
