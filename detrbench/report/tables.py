"""Tables of a section: published beside measured, the difference where the two may be compared.

A table is data; `formats` writes it as text and the templates as HTML. Footnotes hold what a cell cannot: why a
figure was not measured, and why a published figure is doubtful.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from detrbench.measures import label
from detrbench.report import columns, descriptors, identity, labels, query_columns
from detrbench.report.columns import EMPTY, Column, TableCell
from detrbench.report.entries import Entry
from detrbench.report.sections import Section


@dataclass(frozen=True)
class Row:
    """One row: `name` and `id` label it, `status` says why it has no measured figure at all.

    `detector` is its name in all of the report, where the paper prints another; `colour` is the number of its method;
    `starts` a group of rows.
    """

    id: str
    name: str
    detector: str
    colour: int
    measured: bool
    status: str | None
    cells: tuple[TableCell, ...]
    starts: bool = False


@dataclass(frozen=True)
class Table:
    """`folded` are columns that never differ, `notes` footnotes by text, `missing` what no row has and why.

    `first` heads the column of the rows' names.
    """

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    folded: tuple[tuple[str, str], ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    first: str = "Detector"

    @property
    def switches(self) -> list[str]:
        """What of ours can be switched on, where the table has other columns beside."""
        found = list(dict.fromkeys(column.switch for column in self.columns if column.switch))
        own = [column for column in self.columns if not column.switch and column.key.endswith(".published")]
        return found if own and self.key == "main" else []

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings that span columns: (group, number of columns)."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group and column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def main_table(section: Section) -> Table:
    """The suite's table: what tells rows apart, tokens, AP, GFLOPs, parameters, speed, memory, Corr, queries."""
    made = [
        *descriptors.describing_columns(section),
        *columns.tokens(),
        *columns.accuracy(section, ["AP"]),
        *columns.corr(section),
        *query_columns.per_object(section),
        *columns.gflops(section),
        *columns.params(section),
        *columns.speed(section),
        *columns.memory(section),
    ]
    apart = [column for column in made if column.apart]
    made = [column for column in made if column not in apart] + apart  # a block of its own, behind the paper's columns
    if section.published is None:  # no paper's table, beside which ours is switched on
        made = [replace(column, switch="") for column in made]
    caption = section.published.caption if section.published else section.title
    return fill("main", caption, section, made, section.entries, descriptors.folded(section))


# What a suite may list as `report: {tables: ...}`.
DETAILS = (
    "accuracy", "per_class", "gflops_by_part", "latency_by_part", "latencies", "spread", "queries_by_epoch", "training",
)  # fmt: skip


def detail_tables(section: Section) -> list[Table]:
    """What the main table has no room for, as far as the suite asks for it; all by default."""
    measured = [entry for entry in section.entries if entry.cell is not None and entry.cell.records]
    epochs = query_columns.epochs(section)
    first = columns.of_first(section)
    tables = [
        fill("accuracy", "Accuracy in full", section, columns.full_accuracy(section), section.entries),
        per_class(section),
        fill("gflops_by_part", "GFLOPs by part", section, columns.by_part(section, "complexity"), measured),
        fill("latency_by_part", "Latency by part", section, columns.by_part(section, "latency"), measured),
        fill("latencies", "Latency, by how a forward is run", section, columns.latencies(section), measured),
        fill("spread", f"Where queries end{first}", section, query_columns.spread(section), measured),
        fill(
            "queries_by_epoch",
            f"Queries by epoch{first}",
            section,
            query_columns.by_epoch(section, epochs),
            list(epochs),
        ),
        fill("training", f"Training{first}", section, columns.training(section), measured),
    ]
    wanted = section.wanted("tables", DETAILS)
    return [table for table in tables if table.columns and table.rows and table.key in wanted]


def per_class(section: Section) -> Table:
    """AP of each category: a row a category, a column a detector."""
    found = {e.id: e.record("accuracy", e.either("accuracy")).get("per_class") or {} for e in section.entries}
    known = [entry for entry in section.entries if found[entry.id]]
    names = dict.fromkeys(name for entry in known for name in found[entry.id])

    def cell(entry: Entry, name: str) -> TableCell:
        figure = entry.figure("accuracy", entry.either("accuracy"), "per_class", name)
        return EMPTY if figure is None else columns.measured_cell(replace(figure, value=round(figure.value, 1)), 1)

    heads = tuple(Column(f"per_class.{entry.id}", "", entry.id, lambda _: EMPTY) for entry in known)
    rows = tuple(Row("", name, "", 0, True, None, tuple(cell(entry, name) for entry in known)) for name in names)
    return Table("per_class", f"AP by category, {section.condition}", heads, rows, first="Category")


def fill(
    key: str,
    caption: str,
    section: Section,
    wanted: list[Column],
    entries: list[Entry],
    folded: tuple[tuple[str, str], ...] = (),
) -> Table:
    """A table with a row an entry; columns that have nothing in any row are left out."""
    filled = [(column, [column.make(entry) for entry in entries]) for column in wanted]
    kept = [(column, cells) for column, cells in filled if any(cell is not EMPTY for cell in cells)]
    if key == "main":
        constant = [(column, cells) for column, cells in kept if _is_constant(column, cells, entries)]
        folded += tuple((f"{column.group}, {column.label}", _figures(cells)[0].text) for column, cells in constant)
        kept = [pair for pair in kept if pair not in constant]
    notes: dict[str, str] = {}
    rows = []
    for i, entry in enumerate(entries):
        status = entry.status(section.measures)
        cells = tuple(_quiet(cells[i]) if status else cells[i] for _, cells in kept)
        for note in (cell.note for cell in cells if cell.note):
            notes.setdefault(note, labels.letter(len(notes)))
        found = entry.identity
        printed = identity.of_printed(entry.label, {}).method
        name = found.name if found.known and entry.published is None else entry.label
        detector = found.name if found.known and entry.published and found.method != printed else ""
        starts = key == "main" and i > 0 and _group(entry) != _group(entries[i - 1])
        rows.append(Row(entry.id, name, detector, found.colour, entry.cell is not None, status, cells, starts))
    missing = tuple(f"{label(m)}: {why}" for m, why in section.missing()) if key == "main" else ()
    return Table(key, caption, tuple(column for column, _ in kept), tuple(rows), folded, notes, missing)


def _group(entry: Entry) -> tuple[object, ...]:
    """Rows of one group of the paper's: as it prints groups, bases and backbones, else by what is built on what."""
    printed = entry.published.values if entry.published else {}
    keys = [key for key in ("group", "base", "backbone") if printed.get(key)]
    said = tuple(printed[key] for key in keys)
    return said if keys and keys != ["backbone"] else (*said, entry.identity.base)


def _is_constant(column: Column, cells: list[TableCell], entries: list[Entry]) -> bool:
    """A measured figure that is the same wherever it could differ is said once, above the table."""
    measurable = [cell for cell, entry in zip(cells, entries, strict=True) if entry.cell and entry.cell.records]
    same = len(measurable) > 1 and len({(cell.kind, cell.text, cell.note) for cell in measurable}) == 1
    return same and bool(column.group) and measurable[0].kind == "measured" and not measurable[0].detail


def _figures(cells: list[TableCell]) -> list[TableCell]:
    return [cell for cell in cells if cell.kind == "measured"]


def _quiet(cell: TableCell) -> TableCell:
    """Where a whole row is unmeasured its status says so once; its cells need no footnote each."""
    return EMPTY if cell.kind == "absent" else cell
