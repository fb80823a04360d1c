# SPDX-License-Identifier: Apache-2.0
"""The console protocol without input and output: framing, messages, permissions, tokens.

Daemon and client library share it.
"""
