"""What happens inside a section's detectors, drawn from the traces that lie beside their records."""

from __future__ import annotations

from dataclasses import replace

from detrbench.pictures import gallery, scene
from detrbench.pictures.gallery import Exhibit
from detrbench.report.sections import Section
from detrbench.results.folder import CellFolder


def gallery_of(section: Section) -> list[Exhibit]:
    """The same images seen by every cell that has traces, a column each; nothing where no cell has any."""
    scenes, lost = {}, []
    for cell in section.cells:
        if "pictures" not in cell.records:
            continue
        found = scene.read(CellFolder(cell.folder).traces)
        if found is not None and found[0] == cell.envelopes["pictures"].get("key"):
            scenes[cell.id] = found[1]
        else:
            lost.append(cell.id)
    made = gallery.side_by_side(scenes, gallery.SCORE)
    if made and lost:
        note = f" Not shown, because traces.npz is missing or belongs to another record: {', '.join(lost)}."
        made[0] = replace(made[0], caption=made[0].caption + note)
    return made
