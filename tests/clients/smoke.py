"""Which tests of a folder are marked `smoke`: the part that `.ci/run` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence


def mark(config: pytest.Config, items: Sequence[pytest.Item], names: Sequence[str]) -> None:
    """Marks the tests whose ids end with one of `names`. Where only marked ones are wanted, each name must be found."""
    found = {name: [item for item in items if item.nodeid.endswith(name)] for name in names}
    for tests in found.values():
        for test in tests:
            test.add_marker(pytest.mark.smoke)
    lost = [name for name, tests in found.items() if not tests]
    if lost and config.getoption("markexpr") == "smoke":
        raise pytest.UsageError(f"there is no test of this name any more: {', '.join(lost)}")
