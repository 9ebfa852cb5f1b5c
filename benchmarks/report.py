"""Write the measured figures into the pages: `benchmarks/RESULTS.md`, and README and `docs/` between their markers.

A page holds `<!-- measured: NAME -->` ... `<!-- end -->`; what lies between is replaced by the figures of
`benchmarks/results/NAME.json`, or by some of them: `<!-- measured: NAME: figure; another figure -->`.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks.results import FOLDER, ROOT

MARK = re.compile(r"(<!-- measured: ([a-z_]+)(?:: ([^\n]+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def table(result: dict[str, Any], only: str | None = None) -> str:
    """One measurement as a Markdown table with its circumstances; a figure may have several columns."""
    figures: dict[str, Any] = {name.replace("_", " "): value for name, value in result["figures"].items()}
    if only:
        figures = {name: figures[name] for name in only.split("; ")}
    cells = {name: value if isinstance(value, dict) else {"value": value} for name, value in figures.items()}
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [f"| {name} | {' | '.join(str(row.get(column, '')) for column in columns)} |" for name, row in cells.items()]
    head = [f"| figure | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    where = f"Measured on {result['date']}: {result['data']}; {result['machine']}; commit {result['commit']}."
    return "\n".join([*head, *rows, "", where]) + "\n"


def main() -> None:
    """Write the pages."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
    sections = [f"## {name.replace('_', ' ')}\n\n{table(result)}" for name, result in results.items()]
    head = "# Results\n\nWritten by `python -m benchmarks.report` from `benchmarks/results/`; not by hand.\n\n"
    (ROOT / "benchmarks" / "RESULTS.md").write_text(head + "\n".join(sections), encoding="utf-8")

    def fill(found: re.Match[str]) -> str:
        # What was not measured yet keeps its place.
        return f"{found[1]}\n{table(results[found[2]], found[3])}\n{found[4]}" if found[2] in results else found[0]

    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        filled = MARK.sub(fill, text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
