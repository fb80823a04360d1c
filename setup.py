# SPDX-License-Identifier: Apache-2.0
"""Compiles the engine into a package; everything else is in pyproject.toml.

The engine is for the machine that CC compiles for, and so is the wheel. The engine uses no library and no
interpreter, so the wheel serves every C library and every Python.
"""

import os
import shutil
import sys
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build
from setuptools.errors import CompileError, OptionError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, ROOT)

from northstar.engine import binary  # noqa: E402
from northstar.engine import build as engine  # noqa: E402


class Platform(Distribution):
    """A distribution with native code, though it has no module of the interpreter."""

    def has_ext_modules(self):
        return True


class Build(build):
    """The build, from scratch: a module that was removed since the last one must not be installed."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_engine", None)]

    def run(self):
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildEngine(Command):
    """Compiles the engine. Not for an editable installation, which finds it as a checkout does."""

    description = "compile the engine"
    user_options: ClassVar = [("build-lib=", None, "where the package is built")]

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        for output in self.get_outputs():
            os.makedirs(os.path.dirname(output), exist_ok=True)
            _compiled(engine.compile_to, output)
            os.chmod(output, 0o755)

    def get_outputs(self):
        return [] if self.editable_mode else [f"{self.build_lib}/northstar/engine/{binary.NAME}"]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return [os.path.relpath(path, ROOT) for path in engine.SOURCES]


class Wheel(bdist_wheel):
    """The wheel's tag: the machine is that of the engine."""

    def get_tag(self):
        machine = _compiled(engine.machine)
        if not self.plat_name_supplied:
            return "py3", "none", f"linux_{machine}"
        platform = super().get_tag()[2]
        if not platform.endswith(f"_{machine}"):
            raise OptionError(f"--plat-name {platform}: the compiler makes programs for {machine}; set CC")
        return "py3", "none", platform


def _compiled(function, *arguments):
    try:
        return function(*arguments)
    except engine.BuildFailed as error:
        raise CompileError(str(error)) from None


setup(
    license="Apache-2.0",  # in pyproject.toml, setuptools before 77 and later ones take different forms of it
    distclass=Platform,
    cmdclass={"build": Build, "build_engine": BuildEngine, "bdist_wheel": Wheel},
)
