"""Decodes stored images to RGB pixels, by one rule for every kind of file.

The rule is that of torchvision's ImageFolder, `PIL.Image.convert("RGB")`: transparency is dropped,
EXIF rotations and colour profiles are not applied, and the first of several frames is taken. We
differ where that call would silently give other pixels: 16-bit grey is scaled to 8 bits, and
pixels without a known scale are refused.
"""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import PIL  # light, and what names `load_tasks` as needing the extra where it is missing
from jaxtyping import UInt8

if TYPE_CHECKING:
    import PIL.Image

THREADS = min(16, os.cpu_count() or 1)  # decoding and hashing release Python's lock
RULE = 1  # number of this rule; a new number invalidates cached facts about images
# Formats that Pillow reads by itself; for others (EPS) it starts programs.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
PLAIN_MODES = frozenset(("1", "L", "P", "RGB"))
TRANSPARENT_MODES = frozenset(("LA", "PA", "RGBA", "RGBa"))
CONVERTED_MODES = frozenset(("CMYK", "HSV", "RGBX", "YCbCr"))
ORIENTATION, ZERO_IS_WHITE = 0x0112, 262  # tags of EXIF and TIFF


def decode(file: pathlib.Path | io.BytesIO, place: str) -> UInt8[np.ndarray, "h w 3"]:
    """One image in RGB.

    Args:
      file: a path, or the file's content.
      place: name of the image in errors.

    Raises:
      ValueError: the image is incomplete, or cannot be read without guessing.
    """
    try:
        with _open(file) as image:
            return _rgb(image)
    except Exception as error:  # Pillow's kinds for damaged files are many
        raise ValueError(f"{place}: {unreadable(error)}") from error


def look(content: bytes, whole: bool) -> tuple[str, ...]:
    """What reading an image drops or changes, according to its header.

    Args:
      content: bytes of the file.
      whole: also decode the whole image, as `decode` does.

    Raises:
      Exception: of any kind: the image cannot be read; see `unreadable`.
    """
    with _open(io.BytesIO(content)) as image:
        changes = _changes(image)
        if whole:
            _rgb(image)
        else:
            _check(image)
        return changes


def unreadable(error: Exception) -> str:
    """Message for an image that Pillow could not read."""
    reason = str(error) or type(error).__name__
    return f"cannot be read as an image ({reason}); copy it again, convert it, or remove it"


def _open(file: pathlib.Path | io.BytesIO) -> PIL.Image.Image:
    import PIL.Image

    if isinstance(file, pathlib.Path) and file.exists() and not file.is_file():
        raise ValueError("it is not a file")  # opening a pipe would wait for ever
    PIL.Image.init()
    try:
        return PIL.Image.open(file, formats=[name for name in FORMATS if name in PIL.Image.OPEN])
    except PIL.UnidentifiedImageError:  # its own message says no more
        stream: IO[bytes]
        with file.open("rb") if isinstance(file, pathlib.Path) else file as stream:
            stream.seek(0)
            start = stream.read(16)
        begins = f"it begins with {start!r}" if start else "it is empty"
        raise ValueError(f"not a supported image type, or damaged: {begins}") from None


def _rgb(image: PIL.Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    _check(image)
    if _is_grey16(image):
        values = np.asarray(image).astype(np.uint32)
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)  # v / 257, rounded
        return np.repeat(grey[..., None], 3, axis=-1)
    image.load()  # may find transparency that the header did not mention
    image.info.pop("transparency", None)  # dropped; Pillow would warn about some forms
    return np.asarray(image.convert("RGB"))


def _check(image: PIL.Image.Image) -> None:
    """Raises ValueError for pixels that have no agreed conversion."""
    if 0 in image.size:
        raise ValueError(f"its size is {image.size[0]} x {image.size[1]}")
    grey = _is_grey16(image)
    if image.mode not in PLAIN_MODES | TRANSPARENT_MODES | CONVERTED_MODES and not grey:
        kind = {"F": "floating-point numbers", "I": "32-bit or signed integers"}
        raise ValueError(
            f"its pixels are {kind.get(image.mode, f'of mode {image.mode}')}, which have no agreed "
            "scale or conversion; store it with 8 bits per channel, or as 16-bit grey"
        )
    tags = getattr(image, "tag_v2", {})
    if grey and ("I;12" in _raw_modes(image) or tags.get(ZERO_IS_WHITE) == 0):
        raise ValueError(
            "its grey has 12 bits, or 16 bits with 0 as white, which Pillow cannot distinguish "
            "from plain 16 bits; store it with 8 bits"
        )


def _is_grey16(image: PIL.Image.Image) -> bool:
    # PNG and PGM have at most 16 bits of grey; where Pillow says "I", it is 16.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _changes(image: PIL.Image.Image) -> tuple[str, ...]:
    """What is dropped or changed, in words that follow "images ..."."""
    import PIL.Image

    changes = []
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        changes.append("with transparency, which is dropped")
    if _quietly(lambda: image.getexif().get(ORIENTATION)) not in (None, 1):
        turned = image.format == "TIFF"  # by Pillow itself
        changes.append(
            "rotated as their TIFF tag says"
            if turned
            else "with an EXIF rotation, which is ignored"
        )
    if _is_grey16(image) or any(map(_is_deep, _raw_modes(image))):
        changes.append("with 16 bits per channel, scaled to 8")
    if image.mode in CONVERTED_MODES:
        changes.append(f"in {image.mode}, converted to RGB without a colour profile")
    if _quietly(lambda: getattr(image, "is_animated", False)):
        changes.append("with several frames, of which only the first is used")
    if image.width * image.height > (PIL.Image.MAX_IMAGE_PIXELS or float("inf")):
        changes.append("with more pixels than Pillow considers safe, read anyway")
    return tuple(changes)


def _quietly(question: Callable[[], Any]) -> Any:
    """An answer, or None if damage outside the first frame's pixels prevents it."""
    try:
        return question()
    except Exception:
        return None


def _is_deep(raw: str) -> bool:
    return ";16" in raw or (raw.isdigit() and int(raw) > 255)  # digits in PPM


def _raw_modes(image: PIL.Image.Image) -> list[str]:
    """The file's own pixel layout, in Pillow's terms."""
    return [str(part) for tile in getattr(image, "tile", ()) for part in np.atleast_1d(tile[3])]
