# SPDX-License-Identifier: Apache-2.0
"""Thin typed wrappers around Linux kernel interfaces, one module per interface.

Rules of this package: every function makes one system call (or the few that belong together),
raises `OSError` with errno, the name of the call and the object it was about, and needs nothing
but `os`, `sys`, `errno`, `struct`, `ctypes`, `fcntl` and `time`. Modules that run after fork
prepare their ctypes prototypes at import and import nothing later.
"""
