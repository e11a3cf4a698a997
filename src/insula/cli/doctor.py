"""``insula doctor``: what this machine lacks, before it matters."""

from dataclasses import asdict
from pathlib import Path
from textwrap import shorten

from insula.cli.failures import ExitCode
from insula.cli.options import Data, Json, perform
from insula.cli.output import say, show_json, show_table

# What is as it should be needs no more than a line.
_WIDTH = 100


def doctor(data: Data = None, as_json: Json = False) -> None:
    """Check the sandbox's walls, the data folder, SQLite, the port and the settings."""
    perform(_doctor(data, as_json))


async def _doctor(data: Path | None, as_json: bool) -> ExitCode:
    # Loaded here, with the server's settings and sandbox, to keep other commands quick.
    from insula.cli.examination import examine

    findings = await examine(data)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        rows = (
            (
                finding.verdict,
                finding.about,
                shorten(finding.detail, _WIDTH) if finding.verdict == "ok" else finding.detail,
            )
            for finding in findings
        )
        show_table(("", "WHAT", "FOUND"), rows, "Nothing was checked.")
    failed = sum(finding.verdict == "failed" for finding in findings)
    say(f"{failed} of {len(findings)} checks failed." if failed else "Everything needed is there.")
    return ExitCode.FAILED if failed else ExitCode.OK
