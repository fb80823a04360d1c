# SPDX-License-Identifier: Apache-2.0
"""The daemon: repositories, mounts, containers and the console."""
