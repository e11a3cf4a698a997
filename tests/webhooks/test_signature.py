"""Against the example of the Standard Webhooks specification."""

import base64

from insula.webhooks.signature import headers, new_secret, sign

SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
BODY = b'{"event_type":"ping","data":{"success":true}}'


def test_a_signature_is_that_of_the_specification() -> None:
    signed = sign(SECRET, "msg_loFOjxBNrRLzqYUf", 1731705121, BODY)
    assert signed == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_headers_name_what_was_signed() -> None:
    told = dict(headers(SECRET, "msg_1", 5, b"{}"))
    assert told["webhook-id"] == "msg_1"
    assert told["webhook-timestamp"] == "5"
    assert told["webhook-signature"] == sign(SECRET, "msg_1", 5, b"{}")
    assert sign(SECRET, "msg_1", 6, b"{}") != told["webhook-signature"]


def test_secrets_are_long_and_differ() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert len(base64.b64decode(one.removeprefix("whsec_"))) == 24
