"""What the servers need on the machine: Java, and jars that Maven fetches once into ~/.cache/choreo."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(os.environ.get("CHOREO_TEST_CACHE", Path.home() / ".cache" / "choreo"))


class ServerMissingError(Exception):
    """This machine cannot start the server; the message says why and what to do."""


def in_ci() -> bool:
    """Whether a missing server is a failure rather than a reason to skip."""
    return os.environ.get("CI", "").lower() == "true"


@contextlib.contextmanager
def _locked(name: str = "") -> Iterator[None]:
    """One process at a time fills the cache, or what has this name there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".lock{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def program(name: str, package: str) -> str:
    """The path of an installed program; under CI=true its Debian package is installed first if need be.

    Raises:
        ServerMissingError: it is not there.
    """
    found = shutil.which(name)
    if found is None and in_ci():
        with _locked():
            sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
            for arguments in (["update", "-qq"], ["install", "-qq", "-y", package]):
                _run([*sudo, "apt-get", *arguments], f"apt-get cannot install {package}")
        found = shutil.which(name)
    if found is None:
        raise ServerMissingError(f"{name} is not installed (apt-get install {package})")
    return found


def java() -> str:
    """The path of a Java runtime."""
    return program("java", "openjdk-17-jre-headless")


def jars(artifact: str, folder: str) -> Path:
    """A folder with the jar of a Maven artifact (`group:name:version`) and everything it needs at run time."""
    group, name, version = artifact.split(":")
    target = CACHE / folder
    with _locked():
        if not (target / f"{name}-{version}.jar").exists():
            pom = _POM.format(group=group, name=name, version=version)
            with _filled(target) as temporary:
                (temporary / "pom.xml").write_text(pom)
                _maven(
                    temporary,
                    "dependency:copy-dependencies",
                    f"-DoutputDirectory={temporary}",
                    "-DincludeScope=runtime",
                )
                (temporary / "pom.xml").unlink()
    return target


def file(artifact: str, file_name: str, folder: str) -> Path:
    """One file of a Maven artifact (`group:name:version:type:classifier`)."""
    target = CACHE / folder
    with _locked():
        if not (target / file_name).exists():
            with _filled(target) as temporary:
                _maven(temporary, "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={temporary}")
    return target / file_name


def archive(artifact: str, file_name: str, folder: str) -> Path:
    """A folder with the unpacked `tar.gz` of a Maven artifact (`group:name:version:tar.gz:classifier`)."""
    packed, unpacked = CACHE / folder / file_name, CACHE / folder / file_name.removesuffix(".tar.gz")
    with _locked():
        if not packed.exists():
            with _filled(CACHE / folder) as temporary:
                _maven(temporary, "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={temporary}")
        if not unpacked.exists():
            with _filled(unpacked) as temporary:
                shutil.unpack_archive(packed, temporary)
    return unpacked


def made_once(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled by whoever is the first to need it."""
    target = CACHE / name
    with _locked(f"-{name}"):
        if not target.exists():
            with _filled(target) as temporary:
                fill(temporary)
    return target


@contextlib.contextmanager
def _filled(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` once it is filled, so that a half-filled one is never seen."""
    temporary = Path(tempfile.mkdtemp(dir=CACHE, prefix=f".{target.name}-"))
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _maven(folder: Path, *arguments: str) -> None:
    _run(
        [program("mvn", "maven"), "-q", "-B", *arguments],
        "Maven cannot download it (is Maven Central reachable?)",
        folder,
    )


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        tail = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise ServerMissingError(f"{what}: {' | '.join(tail)}")


_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>
  </dependencies>
</project>
"""
