# SPDX-License-Identifier: Apache-2.0
"""sextant, the package tool."""
