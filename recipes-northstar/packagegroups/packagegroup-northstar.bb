# SPDX-License-Identifier: Apache-2.0
SUMMARY = "The Northstar runtime with its client"
DESCRIPTION = "What a device needs to run containers, and to be told to."
SECTION = "base"

inherit packagegroup

RDEPENDS:${PN} = "northstar northstar-nstar"
