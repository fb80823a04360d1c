# SPDX-License-Identifier: Apache-2.0
"""What `northstar.supervision` decides, carried out: `supervisor` is the one place where both meet."""
