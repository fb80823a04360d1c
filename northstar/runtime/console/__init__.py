# SPDX-License-Identifier: Apache-2.0
"""The console: listeners, connections, and requests on their way to `containers` and back.

`transport` and `connection` deal with bytes, lines and permissions, `requests` with what they mean.
"""
