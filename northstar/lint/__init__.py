# SPDX-License-Identifier: Apache-2.0
"""What a reviewer would object to in a manifest and the files it comes with."""
