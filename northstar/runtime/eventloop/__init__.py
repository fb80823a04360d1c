# SPDX-License-Identifier: Apache-2.0
"""The event loop, and what lives on it: tasks, timers, channels, and byte streams of sockets.

Owns the daemon's one thread, and the threads that do for it what may block. Uses nothing of the runtime but
the log; everybody else uses it.
"""
