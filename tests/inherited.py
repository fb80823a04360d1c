# SPDX-License-Identifier: Apache-2.0
"""What a process inherits from the one that starts it, and tests must not depend on."""

from __future__ import annotations

import os
import resource
import signal

KEPT = (
    *("HOME", "LOGNAME", "PATH", "PYTHONPATH", "SHELL", "TERM", "TMPDIR", "USER", "XDG_CACHE_HOME", "CI"),
    *("NORTHSTAR_CACHE", "NORTHSTAR_KEEP", "OE_CORE", "BITBAKE", "META_OE", "BUILDROOT"),
)
"""Variables of the environment that say where things are."""

KEPT_PREFIXES = ("PIP_", "SSL_CERT_", "http_proxy", "https_proxy", "no_proxy")
"""What it takes to reach the network."""

UMASK = 0o022
DESCRIPTORS = 1024


def reset() -> None:
    """Begin as from a login shell, whoever has started this: nohup, a script's background, a service.

    SIGHUP stays ignored where it is: who says nohup means it.
    """
    for number in signal.valid_signals() - {signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(UMASK)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS if hard < 0 else min(DESCRIPTORS, hard), hard))
    for name in list(os.environ):
        if name not in KEPT and not name.startswith(KEPT_PREFIXES):
            del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"
