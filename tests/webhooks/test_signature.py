"""Against the example of the Standard Webhooks specification."""

import base64

from insula.webhooks.signature import EARLIER_MS, Signers, headers, new_secret, sign

SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
BODY = b'{"event_type":"ping","data":{"success":true}}'


def test_a_signature_is_that_of_the_specification() -> None:
    signed = sign(SECRET, "msg_loFOjxBNrRLzqYUf", 1731705121, BODY)
    assert signed == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_headers_name_what_was_signed() -> None:
    told = dict(headers([SECRET], "msg_1", 5, b"{}"))
    assert told["webhook-id"] == "msg_1"
    assert told["webhook-timestamp"] == "5"
    assert told["webhook-signature"] == sign(SECRET, "msg_1", 5, b"{}")
    assert sign(SECRET, "msg_1", 6, b"{}") != told["webhook-signature"]


def test_secrets_are_long_and_differ() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert len(base64.b64decode(one.removeprefix("whsec_"))) == 24


def test_several_secrets_sign_beside_each_other() -> None:
    other = new_secret()
    told = dict(headers([SECRET, other], "msg_1", 5, b"{}"))
    made = [sign(secret, "msg_1", 5, b"{}") for secret in (SECRET, other)]
    assert told["webhook-signature"].split(" ") == made


def test_secrets_that_were_replaced_sign_for_a_day_and_are_few() -> None:
    first = Signers.parse(SECRET)  # as it is stored of a webhook that was never rotated
    assert (first, first.text()) == (Signers(SECRET), SECRET)
    second = first.rotated(1_000)
    assert Signers.parse(second.text()) == second
    assert second.at(1_000 + EARLIER_MS - 1) == (second.current, SECRET)
    assert second.at(1_000 + EARLIER_MS) == (second.current,)
    assert second.rotated(1_000 + EARLIER_MS).earlier == ((second.current, 1_000 + 2 * EARLIER_MS),)
    many = first
    for now in range(10):
        many = many.rotated(now)
    assert len(many.at(10)) == 4
