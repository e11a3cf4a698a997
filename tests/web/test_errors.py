"""Every error has the one body, in the form that was asked for, and no secrets in the log."""

from contextlib import suppress
from typing import Annotated, Any, Literal

import httpx
import pytest
import structlog
from pydantic import Field, TypeAdapter, ValidationError
from starlette.types import Message, Receive, Scope, Send

from insula.web.errors import ErrorBoundary, field_errors

PROBLEM = {"accept": "text/html, application/problem+json;q=0.9"}


async def test_validation_names_every_field(http: httpx.AsyncClient) -> None:
    answer = await http.post("/apps/c/things", json={"name": 1, "inner": {"depth": "x"}})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (400, 400)
    assert [entry["path"] for entry in body["errors"]] == [["name"], ["inner", "depth"]]
    assert body["errors"][0] == {
        "validation": "body",
        "code": "string_type",
        "message": "Input should be a valid string (got a number)",
        "path": ["name"],
    }
    assert "name" in body["message"]


async def test_query_errors_are_400(http: httpx.AsyncClient) -> None:
    answer = await http.get("/apps/c/things", params={"take": "many"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["validation"] == "query"
    assert answer.json()["errors"][0]["path"] == ["take"]


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        (int, "text", "Input should be a valid integer, unable to parse string as an integer"),
        (Annotated[int, Field(ge=1)], 0, "Input should be greater than or equal to 1"),
        (Annotated[str, Field(max_length=2)], "abc", "String should have at most 2 characters"),
        (Literal["a", "b"], "c", "Input should be 'a' or 'b'"),
        (Literal["a", "b"], 3, "Input should be 'a' or 'b' (got a number)"),
        (list[int], {}, "Input should be a valid list (got an object)"),
    ],
)
def test_the_kind_of_what_came_is_told_where_that_is_what_is_wrong(
    model: Any, given: object, told: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(model).validate_python(given)
    assert field_errors(raised.value.errors())[0].message == told


async def test_unknown_paths_and_methods(http: httpx.AsyncClient) -> None:
    nowhere = await http.get("/nowhere")
    assert (nowhere.status_code, nowhere.json()["status"]) == (404, 404)
    wrong = await http.put("/apps/c/things")
    assert (wrong.status_code, wrong.json()["status"]) == (405, 405)
    assert set(wrong.headers["allow"].split(", ")) == {"OPTIONS", "GET", "HEAD", "POST"}


async def test_problem_documents_say_the_same(http: httpx.AsyncClient) -> None:
    plain = (await http.post("/apps/c/things", json={"name": 1})).json()
    answer = await http.post("/apps/c/things", json={"name": 1}, headers=PROBLEM)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["title"] == "Bad Request"
    assert (problem["status"], problem["detail"]) == (400, plain["message"])
    assert problem["errors"] == plain["errors"]


async def test_retry_after(http: httpx.AsyncClient) -> None:
    answer = await http.get("/apps/c/later")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


async def test_an_error_out_of_a_task_group_is_that_error(http: httpx.AsyncClient) -> None:
    answer = await http.get("/apps/c/grouped")
    assert (answer.status_code, answer.json()["message"]) == (409, "It is running.")


async def test_the_unexpected_is_logged_without_what_it_held(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await http.get("/apps/c/boom")
    assert answer.status_code == 500
    [entry] = logs
    assert entry["reference"] in answer.json()["message"]
    assert entry["path"] == "/apps/{app_id}/boom"
    assert "lost the plot" in entry["trace"]
    everything = repr(logs) + answer.text
    assert "hunter2" not in everything.replace('"hunter2-in-a-local-variable"', "")
    assert "Bearer" not in everything
    assert "lost the plot" not in answer.text


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("path", "shown"),
    [("/hooks/secret-token/a", "/hooks/…"), ("/healthz", "/healthz"), ("/", "/")],
)
async def test_no_address_that_lets_anybody_in_is_logged(
    path: str, shown: str, *, started: bool
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("It broke")

    async def send(message: Message) -> None:
        """Nobody listens."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    with structlog.testing.capture_logs() as logs, suppress(RuntimeError):
        await ErrorBoundary(broken)(scope, receive, send)
    [entry] = logs
    assert entry["path"] == shown
    assert "secret-token" not in repr(logs)


async def test_what_came_in_never_comes_back(http: httpx.AsyncClient) -> None:
    answer = await http.post("/apps/c/things", json={"count": "s3cret-value"})
    assert answer.status_code == 400
    assert "s3cret" not in answer.text
