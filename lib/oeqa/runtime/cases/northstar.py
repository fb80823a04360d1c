# SPDX-License-Identifier: Apache-2.0
"""Runtime tests for `bitbake -c testimage`, and for `oe-test runtime` against any device with ssh."""

import json
import time

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

LIMIT = 60
PACKAGES = "/usr/share/northstar/packages"


class NorthstarTest(OERuntimeTestCase):
    """The runtime of the image, by its own client."""

    def on_target(self, command, expected=0):
        """Output of a command that ends with the expected code."""
        status, output = self.target.run(command, LIMIT)
        self.assertEqual(status, expected, f"{command}: {output}")
        return output

    def data_of(self, container):
        """What `inspect` tells."""
        answer = json.loads(self.on_target(f"nstar -j inspect {container}"))
        return answer["response"]["inspect"]["ok"]["data"]

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["northstar"])
    def test_kernel(self):
        """The kernel has everything that the runtime needs."""
        self.on_target("check_conf.sh")

    @OETestDepends(["northstar.NorthstarTest.test_kernel"])
    def test_daemon(self):
        """The service is up and answers."""
        self.assertEqual(self.on_target("nstar ident").strip(), "extern:0.0.0")

    @OETestDepends(["northstar.NorthstarTest.test_daemon"])
    @OEHasPackage(["northstar-examples-npk"])
    def test_start_and_kill(self):
        """A container of the image starts, is verified, and ends."""
        self.on_target("nstar start hello-world")
        self.assertIsNotNone(self.data_of("hello-world")["process"])
        mounts = self.on_target("cat /proc/$(pidof northstar)/mountinfo")
        (line,) = [line for line in mounts.splitlines() if "/hello-world:" in line]
        self.assertIn("/northstar-", line, "not mounted through the device mapper")
        self.on_target("nstar kill hello-world 9")
        deadline = time.monotonic() + LIMIT
        while self.data_of("hello-world")["process"] is not None:
            self.assertLess(time.monotonic(), deadline, "the container does not end")

    @OETestDepends(["northstar.NorthstarTest.test_daemon"])
    @OEHasPackage(["northstar-examples-npk"])
    def test_duplicate_package(self):
        """A package that is there already is refused."""
        output = self.on_target(f"nstar install {PACKAGES}/seccomp-0.0.1.npk memory", expected=3)
        self.assertIn("installed", output)

    @OETestDepends(["northstar.NorthstarTest.test_daemon"])
    @OEHasPackage(["northstar-examples-npk"])
    def test_corrupted_package(self):
        """A package with a changed byte is refused for that, not as a duplicate."""
        self.on_target(f"cp {PACKAGES}/hello-world-0.0.1.npk /tmp/bad.npk")
        self.on_target("printf X | dd of=/tmp/bad.npk bs=1 seek=60 conv=notrunc")
        output = self.on_target("nstar install /tmp/bad.npk memory", expected=3)
        self.on_target("rm /tmp/bad.npk")
        self.assertNotIn("installed", output)
