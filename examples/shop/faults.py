"""What is planted in the shop, to be found by whoever watches it.

`SHOP_FAULTS` names them, with commas in between; `all` (the default) plants every one, and nothing
at all is a clean shop. `SHOP_VERSION` is the release that runs: some faults came with 1.1.0 and are
gone in 1.2.0.
"""

from __future__ import annotations

import os

FAULTS = {
    "declined": "1.1.0 charges in cents where the provider wants euros: dear orders are declined",
    "n_plus_one": "the list of a customer's orders reads every article by itself",
    "slow_search": "a search for a word of one letter looks at every article, slowly",
    "retries": "the warehouse answers 503 for teapots, and is asked five times without a pause",
    "lost_task": "the mail of every third order dies in a thread; nobody reads its result",
    "bad_catalogue": "every second catalogue of the supplier is cut off in the middle",
    "same_prompt": "the assistant asks the model twice for the same thing",
    "broken_page": "a click on the voucher button of the page is a TypeError",
}


def version() -> str:
    """The release that runs."""
    return os.environ.get("SHOP_VERSION", "1.1.0")


def planted(name: str) -> bool:
    """Whether a fault is there."""
    if name not in FAULTS:
        raise KeyError(name)
    named = os.environ.get("SHOP_FAULTS", "all")
    wanted = set(FAULTS) if named == "all" else {one.strip() for one in named.split(",")}
    return name in wanted and not (name == "declined" and version() != "1.1.0")
