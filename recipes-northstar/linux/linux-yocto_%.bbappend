# SPDX-License-Identifier: Apache-2.0
# Only with DISTRO_FEATURES:append = " northstar", so that the layer alone changes nothing.
require ${@bb.utils.contains('DISTRO_FEATURES', 'northstar', 'linux-yocto-northstar.inc', '', d)}
