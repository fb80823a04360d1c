# SPDX-License-Identifier: Apache-2.0
"""Packages at rest: repositories, and how a package's image is verified and mounted.

Also what a daemon that was killed has left on disk. Everything here blocks, and is called in threads. Knows
packages, not runs.
"""
