"""Columns that say which row is which: keep ratio, backbone, epochs. What never differs is said above the table."""

from __future__ import annotations

from detrbench.report import labels
from detrbench.report.columns import EMPTY, Column, Make, TableCell
from detrbench.report.entries import Entry
from detrbench.report.sections import Section


def _keys(section: Section) -> list[str]:
    """Columns that say which row is which: the published ones, then options of the cells."""
    published = section.published.columns if section.published else ()
    options = [key for entry in section.entries if entry.source is None for key in entry.options]
    # Each threshold has columns of its own, see `query_columns`; whose conventions hold is no column of a paper.
    elsewhere = any(entry.source for entry in section.entries)
    without = {"model", "threshold", *(("source",) if published or elsewhere else ())}
    keys = [key for key in [*published, *options] if key not in labels.FIGURES and key not in without]
    return list(dict.fromkeys(keys))


def _differs(section: Section, key: str) -> bool:
    """Whether a column tells rows apart.

    An option that a cell was not given is its default, another value; a published-only row does not know an option.
    """
    ours = [entry for entry in section.entries if entry.source is None]
    knowing = [e for e in ours if e.cell is not None or key in (e.published.values if e.published else {})]
    return len({labels.shown(key, entry.option(key)) for entry in knowing}) > 1


def _has_column(section: Section, key: str) -> bool:
    """Whether a column is shown row by row: it differs, or a row's value is doubtful, which only its cell can say."""
    doubted = any(entry.published is not None and key in entry.published.doubtful for entry in section.entries)
    return doubted or _differs(section, key)


def _heading(section: Section, key: str) -> str:
    is_published = section.published is not None and key in section.published.columns
    return f"{labels.label(key)} (published)" if is_published and key in ("epoch", "epochs") else labels.label(key)


def folded(section: Section) -> tuple[tuple[str, str], ...]:
    """(heading, value) of what is the same in every row."""
    folded = []
    for key in _keys(section):
        values = [entry.option(key) for entry in section.entries]
        value = next((value for value in values if value is not None), None)
        if not _has_column(section, key) and value is not None:
            folded.append((_heading(section, key), labels.shown(key, value)))
    return tuple(folded)


def describing_columns(section: Section) -> list[Column]:
    """A column for each published column or option that differs or is doubtful."""

    def cell_of(key: str) -> Make:
        def cell(entry: Entry) -> TableCell:
            value = entry.option(key)
            doubt = entry.published.doubtful.get(key) if entry.published else None
            if value is None and not doubt:
                return EMPTY
            sortable = value if isinstance(value, int | float | str) else labels.shown(key, value)
            return TableCell(labels.shown(key, value), "text", sortable, note=f"doubtful: {doubt}" if doubt else None)

        return cell

    def origin(entry: Entry) -> TableCell:
        if not entry.source:
            return EMPTY
        torch = entry.interpreter.get("torch")
        text = f"{entry.source}, PyTorch {torch}" if torch else entry.source
        return TableCell(text, "text", text)

    keys = [key for key in _keys(section) if _has_column(section, key)]
    elsewhere = any(entry.source for entry in section.entries)
    origins = [Column("origin", "", "From elsewhere", origin, numeric=False)] if elsewhere else []
    return origins + [Column(key, "", _heading(section, key), cell_of(key), _is_numeric(section, key)) for key in keys]


def _is_numeric(section: Section, key: str) -> bool:
    values = [entry.option(key) for entry in section.entries]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values if v is not None)
