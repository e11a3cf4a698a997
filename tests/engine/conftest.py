"""What the engine's tests share besides the stage."""

from typing import Any

import pytest

from insula.engine.ports import ModelReply


@pytest.fixture
def model_replies() -> Any:
    """Make replies of a model that cost one credit."""

    def make(text: str = "", *calls: Any, **more: Any) -> ModelReply:
        return ModelReply(
            **{
                "provider": "mock",
                "model": "m",
                "text": text,
                "tool_calls": calls,
                "credits": 1.0,
                **more,
            }
        )

    return make
