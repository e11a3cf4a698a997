"""The client of the small application, with a key that may write."""

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.web.application import application, client


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(application()) as opened:
        yield opened
