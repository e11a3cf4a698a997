"""What requests about files have in common: what was sent, and where a list goes on."""

from insula.errors import BadInput, FieldError
from insula.web.pagination import Page, bad_cursor


def given_file(file: object, file_url: str | None) -> tuple[object, str]:
    """Return what is to be stored, and the name of the field that it stands in.

    Raises:
        BadInput: nothing is, or both, or the address is none.
    """
    if (file is None) == (file_url is None):
        message = "send either file or file_url"
        raise BadInput(f"No file: {message}.", [FieldError(("file",), "required", message)])
    if file_url is None:
        return file, "file"
    if not file_url[:8].lower().startswith(("http://", "https://")):
        message = "must be an http or https address"
        raise BadInput(f"file_url {message}.", [FieldError(("file_url",), "url", message)])
    return file_url, "file_url"


def before(page: Page) -> str | None:
    """Return the id before which a list goes on.

    Raises:
        BadInput: the cursor is another list's.
    """
    if page.cursor is None:
        return None
    found = page.cursor.get("before")
    if not isinstance(found, str):
        raise bad_cursor()
    return found
