"""The pages that are made of what the other tests found: they run before this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from results import PAGE, README, is_true, replaced
from test_contrast import ROWS
from test_failures import TRIED

if TYPE_CHECKING:
    from results import Results

HOW = "run the client tests with UPDATE_DOCS=1, and read what changed"


def test_the_pages_say_what_was_found(results: Results) -> None:
    missing = results.missing(list(ROWS), TRIED)
    if missing:
        pytest.skip(f"a part of the clients did not run, or did not pass: {', '.join(missing[:3])} ...")
    assert is_true(PAGE, results.page()), f"{PAGE.name} is not what was found: {HOW}"
    block = results.block(list(ROWS))
    assert is_true(README, replaced(README.read_text(), block)), f"the README's table is not what was found: {HOW}"
