"""Files in messages: their text, their images, themselves."""

from typing import Any

import pytest
from tests.engine.stage import model, play

from insula.engine.failures import StepFailure
from insula.engine.ports import ModelReply
from insula.engine.steps import model_files
from insula.kit.json import Raw
from insula.testing import ScriptedFiles, ScriptedModels

INPUT = Raw(b'{"doc":{"id":"a"},"docs":[{"id":"a"},{"id":"b"}],"none":null,"bad":{"id":"bad"}}')


def answer(aspect: str, file: Any) -> Any:
    if file["id"] == "bad":
        raise StepFailure("bad.pdf: The file is damaged", "input")
    if aspect == "images":
        return [{"id": file["id"] + "1"}, {"id": file["id"] + "2"}]
    kind = "image/jpeg" if file["id"][1:] else "application/pdf"
    return f"text of {file['id']}" if aspect == "text" else f"data:{kind};base64,{file['id']}"


async def told(messages: Any, model_replies: Any) -> Any:
    models = ScriptedModels([model_replies("x")])
    files = ScriptedFiles(answer)
    run = await play(model("M", messages=messages), models=models, files=files, input=INPUT)
    assert run.ended.error is None
    return [message["content"] for message in models.requests[0].messages]


def image(url: str) -> dict[str, str]:
    return {"type": "image", "url": f"data:image/jpeg;base64,{url}"}


def file(url: str) -> dict[str, str]:
    return {"type": "file", "url": f"data:application/pdf;base64,{url}"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


async def test_contents_stand_inside_other_text(model_replies: Any) -> None:
    messages = [
        {"role": "system", "content": "{{input.doc:contents}}!"},
        {"role": "user", "content": "Read <{{input.docs:contents}}> {{input.doc.id}}"},
        {"role": "user", "content": "{{input.none:contents}}{{input.gone:images}}"},
    ]
    assert await told(messages, model_replies) == [
        "text of a!",
        "Read <text of a\n\ntext of b> a",
        "",
    ]


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ("Read <{{input.doc:contents}}> {{input.doc.id}}", ["Read <text of a> a"]),
        ("{{input.doc:images}}", [[image("a1"), image("a2")]]),
        (
            '[{"role":"system","content":"Be"},{"role":"user","content":"See {{input.doc:file}}"}]',
            ["Be", [text("See "), file("a")]],
        ),
        ('[{"role":"user","content":[3]}] {{input.doc:contents}}', None),
    ],
)
async def test_they_stand_in_messages_that_are_one_text(
    messages: str, wanted: Any, model_replies: Any
) -> None:
    whole = [messages.replace("{{input.doc:contents}}", "text of a")]
    assert await told(messages, model_replies) == (wanted or whole)


async def test_images_and_files_become_parts(model_replies: Any) -> None:
    messages = [
        {"role": "user", "content": "{{input.doc:images}}"},
        {"role": "user", "content": "See {{input.docs:file}} and {{input.doc:contents}}."},
        {
            "role": "user",
            "content": [text("a"), text("{{input.doc:file}}"), text("b {{input.doc:contents}}")],
        },
    ]
    assert await told(messages, model_replies) == [
        [image("a1"), image("a2")],
        [text("See "), file("a"), file("b"), text(" and text of a.")],
        [text("a"), file("a"), text("b text of a")],
    ]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "system", "content": "{{input.doc:images}}"}], "user messages only"),
        ([{"role": "assistant", "content": [text("{{input.doc:file}}")]}], "user messages only"),
        ([{"role": "user", "content": "{{input.bad:contents}}"}], "bad.pdf: The file is damaged"),
        ('[{"role":"user","content":[3,"{{input.doc:contents}}"]}]', "can stand in"),
        (
            [{"role": "user", "content": [{"type": "file", "url": "{{input.doc:file}}"}]}],
            "can stand in",
        ),
    ],
)
async def test_where_they_cannot_stand_the_step_fails(messages: Any, words: str) -> None:
    run = await play(model("M", messages=messages), files=ScriptedFiles(answer), input=INPUT)
    assert (run.ended.status, run.ended.code) == ("FAILED", "input")
    assert words in (run.ended.error or "")


async def test_they_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "MESSAGE_BYTES", 15)
    messages = [{"role": "user", "content": "{{input.docs:contents}}"}]
    run = await play(model("M", messages=messages), files=ScriptedFiles(answer), input=INPUT)
    assert "come to more than 15 bytes" in (run.ended.error or "")


@pytest.mark.parametrize(
    ("hole", "room", "asked"),
    [
        # "text of x" has 9 characters, "data:image/jpeg;base64,xn" has 25; 2 stand between texts
        ("{{input.many:contents}}", 9 + 9 + 4 * 2, ["text"] * 3),
        ("{{input.many:images}}", 25 + 25, ["images", "file", "file", "images", "file"]),
        ("{{input.doc:images}}", 25, ["images", "file", "file"]),
        ("{{input.many:file}}", 2 * 30, ["file"] * 3),
    ],
)
async def test_nothing_is_read_beyond_the_bound(
    hole: str, room: int, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "MESSAGE_BYTES", room)
    files = ScriptedFiles(answer)
    given = Raw(b'{"doc":{"id":"a"},"many":[%s]}' % b",".join([b'{"id":"a"}'] * 5))
    messages = [{"role": "user", "content": hole}]
    run = await play(model("M", messages=messages), files=files, input=given)
    assert f"come to more than {room} bytes" in (run.ended.error or "")
    assert [aspect for aspect, _ in files.asked] == asked


async def test_what_stands_between_texts_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [{"role": "user", "content": "{{input.docs:contents}}"}]
    for room, fails in ((19, True), (20, False)):
        monkeypatch.setattr(model_files, "MESSAGE_BYTES", room)
        models = ScriptedModels([ModelReply("mock", "m", "x")])
        files = ScriptedFiles(answer)
        run = await play(model("M", messages=messages), models=models, files=files, input=INPUT)
        assert (run.ended.error is not None) is fails
