# SPDX-License-Identifier: Apache-2.0
"""Images of other container tools: reading them, and turning them into a squashfs image and a manifest.

Source: OCI Image Format Specification 1.1 (image-layout.md, manifest.md, config.md, layer.md) and the format
of `docker save`. Nothing of an image is extracted through the file system of the host.
"""
