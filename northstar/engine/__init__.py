# SPDX-License-Identifier: Apache-2.0
"""The engine and its language.

`engine.c` is the only native code: a process that carries out programs, lists of system calls. The Python
modules are the other side: the instruction set, an assembler, a text form, a validator. What programs say
about containers is in `northstar.programs`. Nothing here imports anything of the daemon.
"""
