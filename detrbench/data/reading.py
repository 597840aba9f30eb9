"""Reading JSON and images so that nothing broken passes silently. Imports no torch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from detrbench.errors import DataError
from detrbench.files import is_special


def read_json(path: Path) -> Any:
    """The parsed file.

    Raises:
        DataError: unreadable, not UTF-8, or not JSON, with line and column.
    """
    if is_special(path):
        raise DataError(f"{path}: cannot be read as JSON: not a regular file")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        hint = "the file is damaged or cut short: fetch or write it again"
        raise DataError(f"{place}: not valid JSON: {error.msg}", hint=hint) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {_reason(error)}") from error


def read_image(path: Path, image_id: int) -> Image.Image:
    """The image as 8-bit RGB: grey is repeated, CMYK and palettes are converted, transparency is dropped.

    An EXIF orientation is not applied, because neither the official code nor COCO's annotations apply it.

    Raises:
        DataError: missing, truncated or undecodable; names the file and the image id.
    """
    if is_special(path):
        raise _unreadable(path, image_id, "not a regular file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, image_id, _reason(error)) from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format in ("JPEG", "MPO") and _ends_early(data):
                raise _unreadable(path, image_id, "truncated: no end-of-image marker")
            return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise _unreadable(path, image_id, _reason(error)) from error


def _ends_early(jpeg: bytes) -> bool:
    """Whether the last scan of a JPEG never ends.

    Pillow can be switched, process-wide, to fill the missing part with grey; this holds either way. An embedded
    thumbnail ends before the main scan starts, so the last of both markers decides.
    """
    start_of_scan, end_of_image = b"\xff\xda", b"\xff\xd9"
    return jpeg.rfind(end_of_image) < jpeg.rfind(start_of_scan)


def _unreadable(path: Path, image_id: int, why: str) -> DataError:
    hint = "restore the file, or list all such files with `detrbench validate PATH`"
    return DataError(f"{path} (image id {image_id}): cannot be read: {why}", hint=hint)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in any format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error) or type(error).__name__).replace("\n", " ")
