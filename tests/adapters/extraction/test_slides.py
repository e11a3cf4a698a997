"""PowerPoint: every text of a slide, whatever its shape is called."""

import io

import pptx
from tests.adapters.extraction.readings import read_here

from insula.adapters.extraction.slides import read_slides


def test_lines_stay_lines_and_shapes_of_one_id_are_two() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[1])
    slide.shapes.title.text = "Title"
    slide.placeholders[1].text_frame.text = "one\vtwo"
    box = slide.shapes.add_textbox(0, 0, 9, 9)
    box.text_frame.text = "a copy"
    box._element.nvSpPr.cNvPr.set("id", str(slide.shapes.title.shape_id))
    groups = slide.shapes
    for _ in range(22):
        groups = groups.add_group_shape().shapes
    groups.add_textbox(0, 0, 9, 9).text_frame.text = "deep"
    data = io.BytesIO()
    made.save(data)
    found = read_here(read_slides, data.getvalue())
    assert found.told == [
        ("TITLE", "Title"),
        ("NARRATIVETEXT", "one\ntwo"),
        ("NARRATIVETEXT", "a copy"),
    ]
    assert list(found.left_out) == ["groups in more than 20 groups"]
