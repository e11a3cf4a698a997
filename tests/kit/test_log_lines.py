"""Lines of the log, whoever writes them."""

import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from insula.kit.log_lines import log_plainly


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose log nobody has configured."""
    monkeypatch.setattr(logging.getLogger("insula"), "handlers", [])
    configured, before = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if configured:
        structlog.configure(**before)


def test_the_engines_lines_look_like_all_others(
    unconfigured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log_plainly(logging.INFO)
    logging.getLogger("insula.engine.execute").error("step %s broke", "sum")
    structlog.get_logger().error("run.not_ended")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line, words in zip(lines, ("step sum broke", "run.not_ended"), strict=True):
        assert re.fullmatch(rf"\d{{4}}-\S+Z \[error    \] {words}\s*", line)
