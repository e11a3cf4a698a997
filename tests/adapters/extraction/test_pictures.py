"""Images: any depth of grey, and all pages of a fax."""

import io

import pytest
from PIL import Image
from tests.adapters.extraction.readings import read_here

from insula.adapters.extraction import pictures
from insula.adapters.extraction.collector import Refused
from insula.adapters.extraction.pictures import prepare, read_picture


def drawn(mode: str, grey: float) -> int:
    """Return how light an image becomes that is so grey, on black."""
    image = Image.new(mode, (30, 30), grey)
    image.paste(0, (0, 0, 30, 10))
    data = io.BytesIO()
    image.save(data, "TIFF")
    (page,) = read_here(read_picture, data.getvalue(), images=True).images
    shown: int = Image.open(io.BytesIO(page.data)).getpixel((20, 20))
    return shown


@pytest.mark.parametrize(
    ("mode", "grey", "shown"),
    [("I;16", 20_000, 77), ("I;16", 200, 200), ("I", 20_000, 77), ("F", 0.5, 255), ("L", 77, 77)],
)
def test_deep_greys_are_not_white(mode: str, grey: float, shown: int) -> None:
    assert abs(drawn(mode, grey) - shown) <= 2


def test_greys_that_are_no_numbers_are_damage() -> None:
    with pytest.raises(Refused, match="damaged"):
        drawn("F", float("inf"))


def test_pages_that_are_left_out_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    monkeypatch.setattr(pictures, "_FRAMES", 2)
    first, *more = [Image.new("LAB", (9, 9)) for _ in range(3)]
    data = io.BytesIO()
    first.save(data, "TIFF", save_all=True, append_images=more)
    found = read_here(read_picture, data.getvalue(), images=True)
    assert (len(found.images), list(found.left_out)) == (2, ["pages after the first 2"])
