# SPDX-License-Identifier: Apache-2.0
"""Run-time test of the image that northstar_qemu_aarch64_defconfig makes, for Buildroot's run-tests.

In Buildroot's tree (see docs/integration.md):

    PYTHONPATH=path/to/northstar/buildroot-package/support/testing \
        support/testing/run-tests -d dl -o output_folder test_northstar
"""

import os
import time

import infra.basetest

EXTERNAL = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
DEFCONFIG = os.path.join(EXTERNAL, "configs/northstar_qemu_aarch64_defconfig")
MACHINE = ("-M", "virt", "-cpu", "cortex-a57", "-smp", "2", "-m", "512")


def defconfig():
    """The defconfig with the host name that the emulator waits for."""
    with open(DEFCONFIG) as file:
        return file.read().replace('HOSTNAME="northstar"', 'HOSTNAME="buildroot"')


class TestNorthstar(infra.basetest.BRTest):
    br2_external = [EXTERNAL]  # noqa: RUF012
    config = defconfig()
    timeout = 60

    def test_run(self):
        images = os.path.join(self.builddir, "images")
        disk = os.path.join(images, "rootfs.ext4")
        self.emulator.boot(
            arch="aarch64",
            kernel=os.path.join(images, "Image"),
            kernel_cmdline=["rootwait", "root=/dev/vda", "console=ttyAMA0"],
            options=[*MACHINE, "-drive", f"file={disk},if=virtio,format=raw,snapshot=on"],
        )
        self.emulator.login()
        self.wait_for("nstar ident")
        self.kernel_test()
        self.container_test()
        self.refusal_test()
        self.service_test()

    def wait_for(self, command):
        """Wait until a command succeeds on the target."""
        deadline = time.monotonic() + self.timeout * self.timeout_multiplier
        while self.emulator.run(command, self.timeout)[1]:
            self.assertLess(time.monotonic(), deadline, f"{command} does not succeed")
            time.sleep(1)

    def kernel_test(self):
        self.assertRunOk("check_conf.sh", self.timeout)
        self.assertRunOk("mount | grep 'on /sys/fs/cgroup type cgroup2'")

    def container_test(self):
        """A container starts from a device of the device mapper, and ends."""
        self.assertRunOk("nstar start hello-world", self.timeout)
        self.wait_for("grep 'hello-world:0.0.1: .*and hello again' /var/log/messages")
        self.assertRunOk("grep '/hello-world:0.0.1 .*/northstar-' /proc/$(cat /run/northstar.pid)/mountinfo")
        self.assertRunOk("nstar kill hello-world 9", self.timeout)
        self.wait_for("grep 'Container hello-world:0.0.1 exited' /var/log/messages")

    def refusal_test(self):
        """Nothing is installed that the key of the image has not signed."""
        self.assertRunOk("printf nonsense > /tmp/nonsense.npk")
        _, exit_code = self.emulator.run("nstar install /tmp/nonsense.npk default", self.timeout)
        self.assertEqual(exit_code, 3)

    def service_test(self):
        script = "/etc/init.d/S80northstar"
        self.assertRunOk(f"{script} status", self.timeout)
        self.assertRunOk(f"{script} restart", self.timeout)
        self.wait_for("nstar ident")
        self.assertRunOk(f"{script} stop", self.timeout)
        _, exit_code = self.emulator.run(f"{script} status", self.timeout)
        self.assertEqual(exit_code, 3)
