# SPDX-License-Identifier: Apache-2.0
"""The process that forks containers, and what runs between fork and execve.

These modules import nothing but the standard library's thinnest parts, the system call wrappers and
ujson, because every container's init is a copy of this process for its whole life.
"""
