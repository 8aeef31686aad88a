"""How Java servers start quickly: with the simple compiler only, and with classes that are not read from jars each time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

from tests.servers.downloads import made_once
from tests.servers.process import Server

_ARCHIVE = "classes.jsa"

QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For servers that live for minutes and share a small machine with tests: few threads, and no second compiler, which would
not earn what it costs."""

LASTING = ("-XX:+UseSerialGC",)
"""For servers whose own speed counts."""


def loaded_classes(java: str, name: str, server: Callable[[list[str]], Server]) -> list[str]:
    """The option that lets a program begin with its classes as an earlier run has left them: half of its start is reading jars.

    Args:
        java: the runtime; each release of it has an archive of its own.
        name: of the program and its version.
        server: makes one with the options given; called, and run for a moment, if there is no archive yet.
    """
    release = Path(java).resolve().parents[1] / "release"
    runtime = zlib.crc32(release.read_bytes() if release.exists() else b"")

    def fill(folder: Path) -> None:
        with server([f"-XX:ArchiveClassesAtExit={folder}/{_ARCHIVE}"]) as first:
            first.stop()

    archive = made_once(f"classes-{name}-{runtime:08x}", fill) / _ARCHIVE
    # A runtime that cannot make archives has left none; one that does not fit is passed over by the runtime itself.
    return [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
