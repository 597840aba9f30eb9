"""Every published table that is kept here, with the suite that runs it: read from reports/published and the suites."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tables import code, table

from detrbench import published, yaml12
from detrbench.report import labels
from detrbench.suite import loading as suites
from detrbench.suite.cells import LoadedSuite

# The papers whose methods this is about, then those that they build on.
FIRST = ("sparse_detr", "focus_detr", "lite_detr", "dac_detr", "ms_detr", "salience_detr")


def tables() -> str:
    """A section for each paper."""
    answering: dict[str, list[LoadedSuite]] = {}
    for name in suites.names():
        loaded = suites.load(name)
        answering.setdefault(loaded.suite.published or "", []).append(loaded)
    others = [paper for paper in published.papers() if paper not in FIRST]
    return "\n\n".join(_section(paper, answering) for paper in (*FIRST, *others))


def _section(paper: str, answering: dict[str, list[LoadedSuite]]) -> str:
    document: dict[str, Any] = yaml12.load(published.FOLDER / f"{paper}.yaml").value
    links = [f"[paper](https://arxiv.org/abs/{document['arxiv']})"] if document["arxiv"] else []
    links += [f"[repository]({document['code']})"] if document.get("code") else []
    about = f"*{document['title']}*, {document['venue']} {document['year']}: {', '.join(links)}. Data: "
    rows = [_row(found, answering.get(found.reference, [])) for found in published.tables_of(paper).values()]
    columns = ("published", "shows", "rows:", "suites", "rows that run:", "GFLOPs counted by")
    return f"## {document['paper']}\n\n{about}`reports/published/{paper}.yaml`.\n\n{table(columns, rows)}"


def _row(found: published.PublishedTable, own: list[LoadedSuite]) -> tuple[str, ...]:
    rules = dict.fromkeys(rule for loaded in own for rule in _rules(loaded))
    return (
        labels.table_name(found.reference),
        found.caption,
        str(len(found.rows)),
        ", ".join(code(loaded.suite.name) for loaded in own),
        ", ".join(str(_running(loaded)) for loaded in own),
        ", ".join(map(code, rules)),
    )


def _cells(loaded: LoadedSuite) -> Any:
    return loaded.cells(loaded.suite.pick_scale(None, has_data=True))


def _running(loaded: LoadedSuite) -> int:
    return sum(cell.model is not None for cell in _cells(loaded))


def _rules(loaded: LoadedSuite) -> Iterator[str]:
    for cell in _cells(loaded):
        yield from cell.protocols_of("complexity")


def not_reproduced() -> str:
    """A row for each reason why published figures are not met, or not certain, with where they stand."""
    where: dict[str, dict[str, int]] = {}
    for found in (each for paper in published.papers() for each in published.tables_of(paper).values()):
        for row in found.rows:
            for column, reason in {**row.doubtful, **row.not_reproduced}.items():
                places = where.setdefault(reason, {})
                place = f"{found.paper}, {labels.table_name(found.reference)}: {labels.label(column)}"
                places[place] = places.get(place, 0) + 1
    rows = (
        [reason, "; ".join(f"{place} ({count})" if count > 1 else place for place, count in places.items())]
        for reason, places in where.items()
    )
    return table(("why", "where (rows)"), rows)
