"""The table of what was measured, against what, and whether that is within its limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Row:
    """One line of the table."""

    what: str
    measured: str
    reference: str = ""
    ratio: str = ""
    limit: str = ""
    is_met: bool | None = None

    def cells(self) -> list[str]:
        verdict = {None: "", True: "met", False: "missed"}[self.is_met]
        return [self.what, self.measured, self.reference, self.ratio, self.limit, verdict]


def at_most(what: str, value: float, reference: float, limit: float, *, unit: str, name: str) -> Row:
    ratio = value / reference
    return Row(
        what, f"{value:.2f} {unit}", f"{reference:.2f} {unit} ({name})", f"{ratio:.2f}", f"<= {limit}", ratio <= limit
    )


def times_faster(what: str, value: float, reference: float, limit: float, *, unit: str, name: str) -> Row:
    ratio = reference / value
    return Row(
        what,
        f"{value:.2f} {unit}",
        f"{reference:.2f} {unit} ({name})",
        f"{ratio:.1f}x faster",
        f">= {limit}x",
        ratio >= limit,
    )


def print_table(rows: list[Row]) -> None:
    lines = [["what", "measured", "reference", "ratio", "limit", "verdict"], *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
