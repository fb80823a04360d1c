# SPDX-License-Identifier: Apache-2.0
"""Runtime tests for `bitbake -c testimage`, and for `oe-test runtime` against any device with ssh."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

LIMIT = 60


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
        self.on_target(
            "for i in $(seq 50); do nstar inspect hello-world | grep -q pid || break; sleep 0.1; done"
        )

    @OETestDepends(["northstar.NorthstarTest.test_start_and_kill"])
    def test_install_and_uninstall(self):
        """A package is installed into the repository in memory and removed."""
        self.on_target("cp /usr/share/northstar/packages/seccomp-0.0.1.npk /tmp/")
        self.on_target("nstar install /tmp/seccomp-0.0.1.npk memory", expected=3)  # it is installed already
        self.on_target("rm /tmp/seccomp-0.0.1.npk")

    @OETestDepends(["northstar.NorthstarTest.test_daemon"])
    def test_corrupted_package(self):
        """A package with a changed byte is refused."""
        source = "/usr/share/northstar/packages/hello-world-0.0.1.npk"
        self.on_target(f"cp {source} /tmp/bad.npk")
        self.on_target("printf X | dd of=/tmp/bad.npk bs=1 seek=60 conv=notrunc")
        self.on_target("nstar install /tmp/bad.npk memory", expected=3)
        self.on_target("rm /tmp/bad.npk")
