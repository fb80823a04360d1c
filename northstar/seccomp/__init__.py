# SPDX-License-Identifier: Apache-2.0
"""System call filters: from the manifest's rules to a BPF program."""
