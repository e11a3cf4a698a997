"""The data folder, made where it is not there yet."""

from pathlib import Path

from insula.cli.failures import usage
from insula.kit.folders import make_folder


def make_data_folder(path: Path) -> None:
    """Make the data folder, and those above it, if it is not there.

    Raises:
        CommandFailed: it cannot be made; the message says why.
    """
    try:
        make_folder(path)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file is in the way" if blocked else error.strerror
        hint = "Name another one with --data, or with INSULA_DATA_DIR."
        raise usage(f"The data folder {path} cannot be made: {why}.", hint) from error
