# SPDX-License-Identifier: Apache-2.0
"""An aarch64 machine in QEMU: kernel, image, and the conversation with what runs in it."""
