# SPDX-License-Identifier: Apache-2.0
"""The way to the native engine: its channel, the reports that come back, and the processes that it has made.

Programs (`northstar.programs`) go in, pids and reports come out. Nothing here knows what a container is.
"""
