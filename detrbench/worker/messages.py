"""Messages on a pipe: JSON, and behind it the bytes of tensors. Nothing that is read here is ever run."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import IO, Any

_LENGTH = struct.Struct("!Q")
Read = Callable[[int], bytes]  # gives exactly so many bytes, or raises EOFError


def write(file: IO[bytes], message: Any, blobs: Sequence[bytes] = ()) -> None:
    """One message, and the bytes that go with it."""
    text = json.dumps([message, [len(blob) for blob in blobs]]).encode()
    file.write(_LENGTH.pack(len(text)))
    file.write(text)
    for blob in blobs:
        file.write(blob)
    file.flush()


def read(exactly: Read) -> tuple[Any, list[bytes]]:
    """The next message and its bytes. Raises EOFError where none is left, ValueError where it is no message."""
    (length,) = _LENGTH.unpack(exactly(_LENGTH.size))
    message, lengths = json.loads(exactly(length))
    return message, [exactly(each) for each in lengths]


def reader(file: IO[bytes]) -> Read:
    """What reads from a file."""

    def exactly(number: int) -> bytes:
        found = file.read(number)
        if len(found) < number:
            raise EOFError
        return found

    return exactly
