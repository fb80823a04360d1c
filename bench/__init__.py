# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: Northstar and its peers side by side, in one run, on one machine."""
