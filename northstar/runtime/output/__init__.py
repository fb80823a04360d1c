# SPDX-License-Identifier: Apache-2.0
"""What containers write: pipes, lines, and the last of them kept in memory.

May use the event loop and the log. Who reads the kept lines is somebody else's business.
"""
