# SPDX-License-Identifier: Apache-2.0
"""Makes files of this repository out of others: completion scripts, manual pages, captures."""
