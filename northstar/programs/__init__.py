# SPDX-License-Identifier: Apache-2.0
"""What the engine is told to do: programs, built by pure functions from a plan.

`control` has those of the engine itself, `start` and `session` those of a container and of a command in a
running one; both are put together from `mounts`, `identity` and `attendance`. Nothing here touches the
kernel.
"""
