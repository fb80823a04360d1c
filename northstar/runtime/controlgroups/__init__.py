# SPDX-License-Identifier: Apache-2.0
"""Control groups of containers, version 1 and version 2 (cgroups(7)), their settings and their events.

May use the log and the event loop; is told by `containers` what a container wants.
"""
