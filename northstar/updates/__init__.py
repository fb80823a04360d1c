# SPDX-License-Identifier: Apache-2.0
"""Updates that undo themselves: which version of a container counts, and how one takes the place of another.

What is here decides and does nothing: journals are values, an update is a pure state machine. The daemon's
`runtime` carries out what it asks for. docs/updates.md tells the whole of it.
"""
