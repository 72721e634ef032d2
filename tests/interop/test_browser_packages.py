"""OpenTelemetry's own browser packages, bundled, in real Chromium before a real collector."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collector.chromium import CHROMIUM, Chromium, Tab, until
from tests.collector.test_pages import Collect, Site, count, serving
from tests.interop.packages import installed

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)

PAGE = """<!doctype html><title>Official</title>
<h1>Something large</h1><button id="buy">Buy</button>
<script>COLLECTOR = "%s"</script><script src="/bundle.js"></script>"""


@pytest.fixture(scope="module")
def bundle(pytestconfig: pytest.Config) -> str:
    """The program with its packages as one script."""
    place = installed(pytestconfig, Path(__file__).parent / "web")
    made = place / "bundle.js"
    bundler = place / "node_modules/.bin/esbuild"
    command = [str(bundler), "page.js", "--bundle", "--log-level=error", f"--outfile={made}"]
    subprocess.run(command, check=True, timeout=120, cwd=place)
    return made.read_text(encoding="utf-8")


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Collect]:
    """A collector."""
    one = Collect(tmp_path / "collect")
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def site() -> Iterator[Site]:
    """A site of its own."""
    with serving() as one:
        yield one


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A page of a browser that knows nothing yet."""
    chromium = Chromium(tmp_path / "chromium")
    try:
        with chromium.tab() as one:
            yield one
    finally:
        chromium.close()


def test_a_page_with_the_official_packages(
    bundle: str, collect: Collect, site: Site, tab: Tab
) -> None:
    """Views, clicks, errors, vitals, calls: each fact a memory, with a browser's trust."""
    site.pages["/page"] = PAGE % collect.url
    site.pages["/bundle.js"] = bundle
    site.pages["/api/stock"] = "{}"
    tab.go(f"{site.url}/page?token=s3cret")
    until(lambda: tab.run("document.title") == "instrumented", "the packages")
    tab.click("#buy")
    tab.run("history.pushState({}, '', '/page/two')")
    tab.run("fetch('/api/stock').then(answer => answer.text())")
    tab.run("setTimeout(() => { throw new TypeError('official-words') })")

    wanted = {"page_view", "user_action", "ui_error", "api_call", "performance_metric"}
    rows = collect.settled("official", lambda rows: wanted <= count(rows).keys())
    found = count(rows)
    titles = [(row["type"], row["title"]) for row in rows]
    assert found["ui_error"] == 1, titles
    assert found["user_action"] == 1, titles
    views = sorted(title for type_, title in titles if type_ == "page_view")
    assert views == ["Viewed /page", "Viewed /page/two"], titles
    assert [t for t in titles if t[0] == "api_call" and "/api/stock" in t[1]], titles
    assert {row["trust"] for row in rows} == {"browser"}
    assert "s3cret" not in str(rows)
    assert (site.told("/api/stock") or "").startswith("00-")
