"""The traps of one namespace package over four source roots, each of which costs a day."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("collector", "exporters", "learning", "instrumentation")
DATA = (
    "engram/collector/default-config.yaml",
    "engram/exporters/lake/sql/tables/_order",
    "engram/exporters/lake/sql/tables/memories.sql",
    "engram/exporters/lake/sql/views/_order",
    "engram/exporters/rules/default.yaml",
)


def project() -> dict[str, object]:
    """The table of tools."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert isinstance(tools, dict)
    return tools


def test_no_init_hides_the_other_roots() -> None:
    """`engram` is a namespace: an `engram/__init__.py` would hide three of the four folders."""
    for package in PACKAGES:
        assert not (ROOT / package / "engram" / "__init__.py").exists()
        assert not (ROOT / package / "__init__.py").exists()


def test_each_package_is_typed_and_explained() -> None:
    """`py.typed` goes in each of the four, and each says what it is for."""
    for package in PACKAGES:
        folder = ROOT / package / "engram" / package
        assert (folder / "py.typed").is_file()
        assert (folder / "__init__.py").read_text().startswith('"""')
        assert sorted(p.name for p in (ROOT / package / "engram").iterdir()) in (
            [package],
            sorted([package, "__pycache__"]),
        )


def test_editable_install_knows_four_roots() -> None:
    """Without `dev-mode-dirs` an editable install puts only the last root on the path."""
    tools = project()
    assert tools["hatch"]["build"]["dev-mode-dirs"] == list(PACKAGES)  # type: ignore[index]
    files = list(Path(sysconfig.get_path("purelib")).glob("*engram*.pth"))
    if not files:
        pytest.skip("not an editable install")
    (file,) = files
    assert {Path(line).name for line in file.read_text().split()} == set(PACKAGES)


def test_all_four_import() -> None:
    """The four packages import side by side, from a working directory that is not the root."""
    code = "; ".join(f"import engram.{package}" for package in PACKAGES)
    subprocess.run([sys.executable, "-c", code], cwd="/", check=True)


def test_mypy_is_given_paths() -> None:
    """`mypy -p engram` checks one root and reports success for the others."""
    mypy = project()["mypy"]
    assert isinstance(mypy, dict)
    assert set(PACKAGES) <= set(mypy["files"])
    assert "packages" not in mypy
    assert mypy["explicit_package_bases"] is True
    assert set(mypy["mypy_path"].split(":")) == set(PACKAGES)


def test_coverage_and_ruff_know_the_roots() -> None:
    """Coverage omits what is never imported, and ruff sorts engram as foreign, unless told."""
    tools = project()
    sources = tools["coverage"]["run"]["source_pkgs"]  # type: ignore[index]
    assert set(sources) == {f"engram.{package}" for package in PACKAGES}
    assert tools["ruff"]["src"] == list(PACKAGES)  # type: ignore[index]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel built from this tree."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_wheel_holds_engram_and_nothing_else(wheel: list[str]) -> None:
    """The top level of the wheel is `engram`, with the four packages and no `__init__`."""
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"engram"}
    inside = {name.split("/")[1] for name in wheel if name.startswith("engram/")}
    assert inside == set(PACKAGES)


def test_wheel_holds_the_data(wheel: list[str]) -> None:
    """SQL, rules, the default configuration and the type markers are shipped."""
    assert set(DATA) <= set(wheel)
    assert {f"engram/{package}/py.typed" for package in PACKAGES} <= set(wheel)
    licences = [name for name in wheel if name.endswith("/LICENSE")]
    assert len(licences) == 1


def test_every_data_file_is_shipped(wheel: list[str]) -> None:
    """Whatever lies in a package besides Python is in the wheel."""
    for package in PACKAGES:
        base = ROOT / package
        for path in (base / "engram").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(base).as_posix() in wheel


def test_light_install_stays_light() -> None:
    """The app side and `engram --help` import nothing of the server extra."""
    code = (
        "import sys; import engram.instrumentation; from engram.collector.cli import _parser;"
        "_parser(); heavy = {'duckdb', 'polars', 'pyarrow', 'lancedb', 'numpy', 'grpc', 'uvicorn',"
        "'yaml'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sdk_exporters_stay_light() -> None:
    """Importing and making the exporters costs an app none of what only an engine needs."""
    code = (
        "import sys; from engram.exporters.sdk import *; EngramSpanExporter('x');"
        "heavy = {'duckdb', 'polars', 'pyarrow', 'numpy', 'google.protobuf', 'grpc', 'isal',"
        "'requests'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_app_side_stays_light() -> None:
    """What `engram run` loads into every app brings none of the official exporters' packages."""
    code = (
        "import sys; from engram.instrumentation.distro import *;"
        "from engram.instrumentation.capture import install_all; "
        "from engram.instrumentation.export import OtlpSpanExporter; OtlpSpanExporter();"
        "install_all();"
        "heavy = {'duckdb', 'polars', 'google.protobuf', 'grpc', 'requests', 'urllib3', 'fastapi',"
        "'starlette', 'celery', 'apscheduler', 'uvicorn'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sdk_exporters_are_found() -> None:
    """`OTEL_TRACES_EXPORTER=engram` and its two sisters name our classes."""
    found = {
        signal: [one.value for one in entry_points(group=f"opentelemetry_{signal}_exporter")
                 if one.name == "engram"]
        for signal in ("traces", "logs", "metrics")
    }  # fmt: skip
    assert found == {
        "traces": ["engram.exporters.sdk:EngramSpanExporter"],
        "logs": ["engram.exporters.sdk:EngramLogRecordExporter"],
        "metrics": ["engram.exporters.sdk:EngramMetricExporter"],
    }
