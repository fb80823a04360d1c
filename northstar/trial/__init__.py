# SPDX-License-Identifier: Apache-2.0
"""`northstar try`: containers in a runtime that is thrown away afterwards."""
