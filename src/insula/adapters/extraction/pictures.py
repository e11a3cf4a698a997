"""Images: checked, made small enough, and written anew: nothing hidden in them travels on."""

import io
import math
import warnings
import zipfile
from typing import BinaryIO, cast

from PIL import Image, ImageOps, UnidentifiedImageError

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.messages import PageImage

LONGEST = 2_000
"""Pixels of an image's longer side."""
PIXELS = 100_000_000
_QUALITY = 85
_EMBEDDED = 200
_SMALLEST = 32
_FRAMES = 200
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")

Image.MAX_IMAGE_PIXELS = PIXELS


def prepare() -> None:
    """Load what reading and writing images takes, while files can still be opened."""
    Image.init()
    buffer = io.BytesIO()
    for mode in ("RGB", "LAB"):  # which has a library of its own
        Image.new(mode, (8, 8)).convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def read_picture(file: BinaryIO, found: Collector) -> None:
    """Read an image file: each of its frames is a page. There is no text to be had from it."""
    image = _opened(file)
    count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1  # others move
    frames = min(count, _FRAMES)
    if count > frames:
        found.leave_out(f"pages after the first {_FRAMES}")
    for number in range(frames):
        try:
            image.seek(number)
            page = _page(image, number + 1)
        except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise Refused("The image is damaged: it cannot be decoded") from error
        if found.order.contents:
            found.add("IMAGE", f"Image, {page.width} × {page.height}", number + 1)
        if found.order.images:
            found.image(page)
        found.progress(number + 1, frames)


def add_embedded(archive: zipfile.ZipFile, folder: str, found: Collector) -> None:
    """Add the pictures that stand in an office document, if images are asked for."""
    if not found.order.images:
        return
    names = [name for name in archive.namelist() if name.startswith(folder)]
    if len(names) > _EMBEDDED:
        found.leave_out(f"pictures after the first {_EMBEDDED}")
    for name in names[:_EMBEDDED]:
        try:
            with archive.open(name) as file:
                image = _opened(io.BytesIO(file.read()))
            if min(image.size) >= _SMALLEST:
                found.image(_page(image, 1))
        except (Refused, OSError, SyntaxError, ValueError, zipfile.BadZipFile, RuntimeError):
            continue  # a drawing in another format, say: the rest of the document counts


def _opened(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(f"The image has more than {PIXELS:,} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Refused("The image is damaged, or of a kind that is not read here") from error
    if image.width * image.height > PIXELS:
        raise Refused(f"The image has {image.width * image.height:,} pixels, more than {PIXELS:,}")
    return image


def _page(image: Image.Image, page: int) -> PageImage:
    image.draft("RGB", (LONGEST, LONGEST))
    upright = ImageOps.exif_transpose(image)
    upright.thumbnail((LONGEST, LONGEST))
    return encoded(upright, page)


def _shallow(image: Image.Image) -> Image.Image:
    """Return greys of more than 8 bits in 8: as they stand, most of them would be white."""
    plain = image.convert("F")
    low, high = cast("tuple[float, float]", plain.getextrema())
    if not math.isfinite(low) or not math.isfinite(high):
        raise Refused("The image is damaged: its greys are no numbers")
    if image.mode != "F" and low >= 0:
        low, high = 0, 255 if high <= 255 else 65_535 if high <= 65_535 else high
    scale = 255 / (high - low) if high > low else 0.0
    return plain.point(lambda grey: grey * scale - low * scale).convert("L")


def encoded(image: Image.Image, page: int) -> PageImage:
    """Write an image anew, on white where it is transparent."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(with_alpha, mask=with_alpha.getchannel("A"))
    elif image.mode in _DEEP:
        image = _shallow(image)
    elif image.mode not in ("RGB", "RGBX", "L"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return PageImage(page, image.width, image.height, "image/jpeg", buffer.getvalue())
