# SPDX-License-Identifier: Apache-2.0
"""Tasks of the layer's recipes that are really executed, from fetching to packages and their checks.

Dependencies are not built: BitBake gets tools of this machine in their place.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from bitbake import KEY, Build
from nacl.signing import SigningKey

from northstar.npk import package
from northstar.sextant import cli

RECIPES = ("northstar/northstar_0.1.0", "examples/northstar-examples_0.1.0")
SIGN = """\
import sys
from nacl.signing import SigningKey
key = SigningKey(bytes(range({first}, {first} + 32)))
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()).signature)
"""


def done(build: Build, recipe: str, task: str, configuration: str = "") -> str:
    """Output of tasks that succeed."""
    path = build.workspace.layer / f"recipes-northstar/{recipe}.bb"
    result = build.single(path, task, configuration)
    assert result.returncode == 0, result.stdout[-8000:]
    assert not re.findall(r"^(?:WARNING: .*QA|ERROR)", result.stdout, re.MULTILINE), result.stdout
    return result.stdout


def trial(build: Build, recipe: str, task: str, configuration: str = "") -> tuple[int, str]:
    """Exit code and output for a recipe of the trial layer."""
    path = build.workspace.trial / f"recipes-trial/trial/{recipe}.bb"
    result = build.single(path, task, configuration)
    return result.returncode, result.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_package_qa(build: Build, recipe: str) -> None:
    assert "do_package_qa: Succeeded" in done(build, recipe, "package_qa")


def test_packages_of_the_runtime(build: Build) -> None:
    done(build, RECIPES[0], "package_write_deb")
    packages = build.packages("northstar")
    assert {"northstar", "northstar-nstar", "northstar-sextant", "northstar-ptest"} <= set(packages)
    tree = build.unpacked(packages["northstar"])
    assert (tree / "DEBIAN/conffiles").read_text().split() == ["/etc/northstar/northstar.toml"]
    assert "python3-pynacl" in (tree / "DEBIAN/control").read_text()
    installed = (tree / "DEBIAN/postinst").read_text()
    script, unit = tree / "etc/init.d/northstar", tree / "usr/lib/systemd/system/northstar.service"
    if build.path.name.endswith("sysvinit"):
        assert "update-rc.d $OPT northstar defaults 80 20" in installed
        assert script.stat().st_mode & 0o111
        assert not unit.exists()
    else:
        assert "systemctl" in installed
        assert "northstar.service" in installed or list(tree.rglob("*.preset"))
        assert unit.exists()
        assert (tree / "usr/lib/tmpfiles.d/northstar.conf").exists()
        assert not script.exists()
    (engine,) = tree.glob("usr/lib/python3*/site-packages/northstar/engine/northstar-engine")
    header = engine.read_bytes()[:20]
    assert (header[:5], header[18]) == (b"\x7fELF\x02", 183)  # EM_AARCH64
    assert engine.stat().st_mode & 0o777 == 0o755
    assert "Architecture: arm64" in (tree / "DEBIAN/control").read_text()
    assert not list(tree.rglob("*.c"))
    sextant = build.unpacked(packages["northstar-sextant"])
    assert (sextant / "usr/bin/sextant").exists()
    assert not (tree / "usr/bin/sextant").exists()


def test_packages_of_the_examples(build: Build) -> None:
    done(build, RECIPES[2], "package_write_deb")
    tree = build.unpacked(build.packages("northstar-examples")["northstar-examples-npk"])
    found = sorted((tree / "usr/share/northstar/packages").iterdir())
    assert "hello-world-0.0.1.npk" in [path.name for path in found]
    for path in found:
        with path.open("rb") as file:
            package.load(file.fileno(), bytes(SigningKey(KEY).verify_key), str(path))


# --- npk.bbclass


def sign_command(build: Build, first: int) -> str:
    """Configuration with a command that signs with the seed `first`, `first` + 1 ..."""
    script = build.workspace.work / f"sign{first}.py"
    script.write_text(SIGN.format(first=first))
    return f'NPK_KEY_FILE = ""\nNPK_SIGN_COMMAND = "nativepython3 {script}"\n'


def test_application(build: Build) -> None:
    code, output = trial(build, "trial_1.0", "package_write_deb", sign_command(build, 0))
    assert code == 0, output[-8000:]
    packages = build.packages("trial")
    tree = build.unpacked(packages["trial-npk"])
    with (tree / "usr/share/northstar/packages/trial-1.0.0.npk").open("rb") as file:
        loaded = package.load(file.fileno(), bytes(SigningKey(KEY).verify_key), "trial")
    assert loaded.manifest.init == "/usr/bin/trial"


def test_content_of_a_container(build: Build) -> None:
    """The runtime files of the recipe, stripped; also when it is packed again."""
    for compression in ("gzip", "xz", "gzip"):
        configuration = f'{sign_command(build, 0)}NPK_COMPRESSION = "{compression}"\n'
        code, output = trial(build, "trial_1.0", "deploy", configuration)
        assert code == 0, output[-8000:]
        (path,) = (build.path / "tmp-single/deploy/images").rglob("trial-1.0.0.npk")
        target = build.workspace.work / "content"
        shutil.rmtree(target, ignore_errors=True)
        assert cli.main(["unpack", "-n", str(path), "-o", str(target)]) == 0
        files = [found for found in (target / "root").rglob("*") if not found.is_dir()]
        assert [str(found.relative_to(target / "root")) for found in files] == ["usr/bin/trial"]
        sections = subprocess.run(
            ["aarch64-linux-gnu-objdump", "-h", files[0]], capture_output=True, text=True, check=True
        ).stdout
        assert ".text" in sections
        assert ".debug" not in sections


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ('NPK_KEY_FILE = ""\n', "NPK_KEY_FILE is not set"),
        ('NPK_KEY_FILE = "/nonexistent.key"\n', "NPK_KEY_FILE: /nonexistent.key does not exist"),
        ('NPK_MANIFEST = "/nonexistent.yaml"\n', "NPK_MANIFEST: /nonexistent.yaml does not exist"),
    ],
)
def test_mistakes(build: Build, configuration: str, message: str) -> None:
    code, output = trial(build, "trial_1.0", "npk", configuration)
    assert code != 0
    assert message in output


def test_signature_of_another_key(build: Build) -> None:
    packed_anew = 'NPK_COMPRESSION = "gzip"\n'
    code, output = trial(build, "trial_1.0", "npk", sign_command(build, 1) + packed_anew)
    assert code != 0
    assert "does not fit to the public key" in output


def test_two_recipes_with_the_same_container(build: Build) -> None:
    code, output = trial(build, "trial_1.0", "deploy")
    assert code == 0, output[-8000:]
    code, output = trial(build, "twin_1.0", "deploy")
    assert code != 0
    assert "trial-1.0.0.npk" in output


# --- northstar_kernel.bbclass


def test_kernel_without_an_option(build: Build) -> None:
    options = (build.workspace.layer / "recipes-northstar/linux/files/northstar.cfg").read_text()
    config = build.workspace.work / "trial.config"
    configuration = f'TRIAL_CONFIG = "{config}"\n'
    config.write_text(options)
    code, output = trial(build, "trial-kernel_1.0", "configure", configuration)
    assert code == 0, output[-8000:]
    config.write_text(options.replace("CONFIG_DM_VERITY=y", "# CONFIG_DM_VERITY is not set"))
    code, output = trial(build, "trial-kernel_1.0", "configure", configuration + 'TRIAL = "2"\n')
    assert code != 0
    assert re.search(r"CONFIG_DM_VERITY: repositories with a key are refused", output)
    warn = configuration + 'TRIAL = "3"\nNORTHSTAR_KERNEL_CHECK = "warn"\n'
    code, output = trial(build, "trial-kernel_1.0", "configure", warn)
    assert code == 0
    assert "CONFIG_DM_VERITY: repositories with a key are refused" in output
