"""What `pip install engram` brings into an app's environment, from a wheel of this tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = 25
MEGABYTES = 15
HEAVY = {"duckdb", "polars", "lancedb", "torch", "numpy", "pyarrow", "protobuf", "requests"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel, and its dependencies from the usual index."""
    folder = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check",
         "--retries", "1", wheel],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no index to install from: {done.stderr.strip()[-200:]}")
    return python


def test_it_is_small(bare: Path) -> None:
    """At most 25 packages and 15 MB, none of them heavy."""
    listed = subprocess.run(
        [bare, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {one["name"].lower() for one in json.loads(listed.stdout)} - {"pip", "setuptools"}
    assert not names & HEAVY
    assert len(names) <= PACKAGES, sorted(names)
    (site,) = (bare.parents[1] / "lib").glob("python*/site-packages")
    files = [
        path
        for path in site.rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and path.relative_to(site).parts[0].split("-")[0] not in {"pip", "setuptools"}
        and path.relative_to(site).parts[0] not in {"pkg_resources", "_distutils_hack"}
    ]
    assert sum(path.stat().st_size for path in files) <= MEGABYTES * 1_000_000


def test_it_runs_beside_modules_of_the_same_names(bare: Path, tmp_path: Path) -> None:
    """An app with packages `collector` and `exporters` of its own starts, and they are its own."""
    for name in ("collector", "exporters", "learning", "instrumentation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"mine = {name!r}\n")
    (tmp_path / "app.py").write_text(
        "import collector, exporters, learning, instrumentation, sys\n"
        "print(collector.mine, exporters.mine, learning.mine, instrumentation.mine)\n"
        "from engram.instrumentation.distro import is_active\n"
        "from engram.instrumentation.capture import installed\n"
        "print(is_active(), [k for k, v in installed.items() if v.startswith('failed')])\n"
        "import opentelemetry.trace as t; print(type(t.get_tracer_provider()).__module__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PYTHON"))}
    done = subprocess.run(
        [bare.parent / "engram", "run", "--endpoint", "http://127.0.0.1:9", "--", bare, "app.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "collector exporters learning instrumentation",
        "True []",
        "opentelemetry.sdk.trace",
    ], done.stderr
    assert "Traceback" not in done.stderr


def test_what_needs_the_server_says_so(bare: Path, tmp_path: Path) -> None:
    """Help works, and a command that stores says what to type."""
    engram = bare.parent / "engram"
    assert subprocess.run([engram, "--help"], capture_output=True).returncode == 0
    done = subprocess.run([engram, "up"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert 'pip install "engram[server]"' in done.stderr
