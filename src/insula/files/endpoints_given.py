"""What requests that bring a file have in common."""

from insula.errors import BadInput, FieldError


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
