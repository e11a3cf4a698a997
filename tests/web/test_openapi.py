"""The document: bodies in both forms, every error, every parameter, no reference to nowhere."""

import asyncio
import json
import re
import threading
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, create_model
from tests.web.application import authenticate, client

from insula.settings import load_settings
from insula.web import openapi
from insula.web.openapi import create_application, describe, request_body


async def document(http: httpx.AsyncClient) -> Any:
    return (await http.get("/openapi.json")).json()


async def test_bodies_are_described_in_both_forms(http: httpx.AsyncClient) -> None:
    found = await document(http)
    body = found["paths"]["/apps/{app_id}/things"]["post"]["requestBody"]
    reference = {"schema": {"$ref": "#/components/schemas/Thing"}}
    assert body["content"] == {"application/json": reference, "multipart/form-data": reference}
    assert body["required"] is False
    thing = found["components"]["schemas"]["Thing"]["properties"]
    assert thing["document"]["anyOf"][0] == {"type": "string", "format": "binary"}
    assert "Inner" in found["components"]["schemas"]


async def test_errors_and_parameters_are_described(http: httpx.AsyncClient) -> None:
    found = await document(http)
    write = found["paths"]["/apps/{app_id}/things"]["post"]
    error = {"$ref": "#/components/schemas/ErrorSchema"}
    for status in ("400", "401", "403", "404", "409", "413", "415", "422", "429", "503"):
        assert write["responses"][status]["content"]["application/json"]["schema"] == error
    read = found["paths"]["/apps/{app_id}/things"]["get"]
    assert "422" not in read["responses"]
    names = [parameter["name"] for parameter in read["parameters"]]
    assert names == ["app_id", "page", "take", "next"]
    remove = found["paths"]["/apps/{app_id}/things/{thing_id}"]["delete"]
    assert [parameter["name"] for parameter in remove["parameters"]] == ["app_id", "thing_id"]
    assert read["security"] == [{"key": []}]


async def test_every_reference_leads_somewhere(http: httpx.AsyncClient) -> None:
    found = await document(http)
    names = set(re.findall(r"#/components/schemas/([\w.-]+)", json.dumps(found)))
    assert names <= set(found["components"]["schemas"])
    assert "$defs" not in json.dumps(found)


async def test_it_is_made_once_and_not_in_passing(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def describing(app: FastAPI) -> Any:
        threads.append(threading.current_thread())
        return describe(app)

    monkeypatch.setattr(openapi, "describe", describing)
    first, second = await asyncio.gather(document(http), document(http))
    assert first == second
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_two_models_of_one_name_stay_apart() -> None:
    router = APIRouter()
    answered = create_model("Twin", answered=(int, ...))
    asked: type[BaseModel] = create_model("Twin", asked=(str, ...))

    @router.post("/twins", response_model=answered, openapi_extra=request_body(asked))
    async def twins() -> None:
        """Never called."""

    app = create_application([router], authenticate, {}, load_settings())
    async with client(app) as http:
        schemas = (await document(http))["components"]["schemas"]
    assert set(schemas["Twin"]["properties"]) == {"answered"}
    assert set(schemas["Twin-Input"]["properties"]) == {"asked"}
