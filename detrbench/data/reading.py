"""Reading JSON and images so that nothing broken passes silently. Imports no torch."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from detrbench.errors import DataError
from detrbench.files import is_special

MOST_PIXELS = 100_000_000
"""Of an image: more fill the memory when they are decoded (300 MB as RGB, several times that while it is resized)."""
MOST_BYTES = 2**30
"""Of an image's file."""

# Its warning would come before the refusal below, which says more.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


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
        raise DataError(f"{path}: cannot be read as JSON: {reason(error)}") from error


def read_image(path: Path, image_id: int) -> Image.Image:
    """The image as 8-bit RGB: grey is repeated, CMYK and palettes are converted, transparency is dropped.

    An EXIF orientation is not applied, because neither the official code nor COCO's annotations apply it.

    Raises:
        DataError: missing, truncated or undecodable; names the file and the image id.
    """
    try:
        refuse_file(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, image_id, reason(error)) from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            refuse_size(image)
            if image.format in ("JPEG", "MPO") and _ends_early(data):
                raise _unreadable(path, image_id, "truncated: no end-of-image marker")
            return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise _unreadable(path, image_id, reason(error)) from error


def refuse_file(path: Path) -> None:
    """Raises ValueError for what is no file or too long a one, before it is read; OSError where there is none."""
    if is_special(path):
        raise ValueError("not a regular file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes: expected an image of at most {MOST_BYTES:,}")


def refuse_size(image: Image.Image) -> None:
    """Raises ValueError for an image, not decoded yet, that has too many pixels."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels: expected at most {MOST_PIXELS:,}; make it smaller")


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


def reason(error: BaseException) -> str:
    """Why a file cannot be read, in a line."""
    if isinstance(error, Image.DecompressionBombError):  # Pillow refuses still larger ones before it tells their size
        return f"far more than {MOST_PIXELS:,} pixels: make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in any format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error) or type(error).__name__).replace("\n", " ")
