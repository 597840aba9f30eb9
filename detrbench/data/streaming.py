"""Large JSON files, batch by batch, so that the memory in use does not grow with the file.

COCO train2017's annotations are 450 MB, of which 400 MB are polygons that nobody here looks at: their text is dropped
before it is parsed.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

CHUNK = 1 << 22  # bytes read at a time
_NEAR_END = 32  # characters: a mistake so near to what has been read may be a value that goes on

# Polygons (lists of numbers in a list) and run lengths (an object without objects). A quote within a string is escaped,
# so this cannot match inside one.
_SEGMENTATION = re.compile(
    r'"segmentation"\s*:\s*(?:\[\s*(?:\[[^]]*\]\s*(?:,\s*)?)*\]|\{[^}]*\})',
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def batches(file: _Readable) -> Iterator[tuple[str, list[Any]]]:
    """The entries of the lists of a JSON document: (key, batch) of an object, ("", batch) of a list.

    An empty list is one empty batch; other values of an object are passed over. Values of keys called `segmentation`
    are 0.

    Raises:
        ValueError: not JSON, or neither a list nor an object; the place is not known, `read_json` tells it.
    """
    text = _Text(file)
    opening = text.peek()
    if opening == "[":
        for batch in text.entries():
            yield "", batch
    elif opening == "{":
        yield from _of_object(text)
    else:
        raise ValueError("expected a list or an object at the top")
    if text.peek():
        raise ValueError("extra data")


def _of_object(text: _Text) -> Iterator[tuple[str, list[Any]]]:
    text.position += 1
    if text.peek() == "}":
        text.position += 1
        return
    while True:
        key = text.value()
        if not isinstance(key, str) or text.separator() != ":":
            raise ValueError("expected a key")
        if text.peek() == "[":
            for batch in text.entries():
                yield key, batch
        else:
            text.value()
        separator = text.separator()
        if separator == "}":
            return
        if separator != ",":
            raise ValueError("expected a comma or the end of the object")


class _Text:
    """The document's text as far as it is in hand, and how far it has been parsed."""

    def __init__(self, file: _Readable) -> None:
        self.file, self.buffer, self.position = file, "", 0
        self.raw, self.ended = "", False  # not yet looked through for segmentations
        self.utf8 = codecs.getincrementaldecoder("utf-8")()
        self.decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        """Drops what is parsed and takes in more, at least as much as is left; False at the end of the file."""
        if self.ended:
            return False
        rest = self.buffer[self.position :]
        while True:
            read = self.file.read(max(CHUNK, len(rest), len(self.raw)))
            self.ended = not read
            self.raw += self.utf8.decode(read, final=self.ended)
            # No segmentation goes past the end of its record, so what ends with a brace holds no half of one.
            end = len(self.raw) if self.ended else self.raw.rfind("}") + 1
            if end or self.ended:
                break
        self.buffer = rest + _SEGMENTATION.sub('"segmentation":0', self.raw[:end])
        self.raw, self.position = self.raw[end:], 0
        return True

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self.position = _end_of_space(self.buffer, self.position)
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if not self.more():
                return ""

    def separator(self) -> str:
        """Takes the next character, which has to stand between values."""
        found = self.peek()
        self.position += 1
        return found

    def value(self) -> Any:
        """Takes one value."""
        self.peek()
        while True:
            try:
                value, end = self.decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                goes_on = error.pos >= len(self.buffer) - _NEAR_END or error.msg.startswith("Unterminated string")
                if not goes_on or not self.more():
                    raise
                continue
            if end == len(self.buffer) and self.more():  # a number may go on
                continue
            self.position = end
            return value

    def entries(self) -> Iterator[list[Any]]:
        """Takes a list, as many entries at a time as are in hand."""
        self.position += 1
        if self.peek() == "]":
            self.position += 1
            yield []
            return
        separator = ","
        while separator == ",":
            held = self.buffer
            batch = self._all_in_hand()
            if batch:
                separator = self.separator()
            while separator == "," and self.buffer is held:
                batch.append(self.value())
                separator = self.separator()
            yield batch
        if separator != "]":
            raise ValueError("expected a comma or the end of the list")

    def _all_in_hand(self) -> list[Any]:
        """Takes all that is in hand where it is nothing but records, which is the usual case; else nothing."""
        records = self.buffer[self.position :]
        if not records.endswith("}"):
            return []
        try:
            found: list[Any] = json.loads(f"[{records}]")
        except ValueError:  # the list ends within it, or there are braces within records
            return []
        self.position = len(self.buffer)
        return found


def _end_of_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\n\r":
        position += 1
    return position
