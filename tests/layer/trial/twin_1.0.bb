# SPDX-License-Identifier: Apache-2.0
# The same container as trial.
require trial.inc
