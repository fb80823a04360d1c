# SPDX-License-Identifier: Apache-2.0
"""The package format NPK: a zip of a manifest, a signature and a squashfs image with its hash tree."""
