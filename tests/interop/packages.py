"""A Node program's packages, installed by npm where it can."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

OFFLINE = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH")


def installed(pytestconfig: pytest.Config, program: Path) -> Path:
    """A copy of the program with its packages, made once and kept by pytest."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: Node's SDK is not tested")
    assert pytestconfig.cache is not None
    wanted = (program / "package.json").read_bytes()
    name = f"interop-node-{hashlib.blake2b(wanted, digest_size=6).hexdigest()}"
    place = Path(pytestconfig.cache.mkdir(name))
    for file in program.iterdir():
        if file.is_file():
            shutil.copy(file, place)
    if not (place / "installed").exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        done = subprocess.run(install, cwd=place, capture_output=True, text=True, timeout=300)
        if done.returncode and any(word in done.stderr for word in OFFLINE):
            pytest.skip(f"npm reaches no registry: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
        (place / "installed").touch()
    return place
