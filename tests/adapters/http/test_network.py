"""TLS over plain sockets, and the same behaviour on the production loop."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from insula.adapters.http import network
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.network import Resolver, Target
from insula.adapters.http.places import Claim
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest


def _certificate(folder: Path, address: str) -> Path:
    """Write a key and a certificate, signed by itself, for an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def _listen(pem: Path, server) -> asyncio.Server:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)


async def _tls_case(tmp_path: Path, server, answer, address: str, trusted: bool) -> object:
    pem = _certificate(tmp_path, address)
    listener = await _listen(pem, server)
    port = listener.sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cafile=str(pem) if trusted else None)
    client = HttpClient(EgressPolicy(["127.0.0.1"]), tls=trust)
    server.answer(answer(b"y" * 300_000))
    body = b"x" * 300_000
    request = HttpRequest("POST", f"https://127.0.0.1:{port}/", body=body)
    try:
        first = await client.send(request, Activity("test", 0))
        second = await client.send(request, Activity("test", 0))
        assert first.body == second.body == b"y" * 300_000
        assert server.requests[1].endswith(body)
        return client.open_connections
    except StepFailure as failure:
        assert client.open_connections == 0
        return failure
    finally:
        await client.close()
        listener.close()


async def test_a_trusted_server(tmp_path, server, answer) -> None:
    assert await _tls_case(tmp_path, server, answer, "127.0.0.1", trusted=True) == 1
    assert server.connections == 1


@pytest.mark.parametrize(("address", "trusted"), [("127.0.0.1", False), ("127.0.0.9", True)])
@pytest.mark.filterwarnings("ignore")  # the server's side logs the broken handshake
async def test_a_wrong_certificate(tmp_path, server, answer, address, trusted) -> None:
    failure = await _tls_case(tmp_path, server, answer, address, trusted)
    assert isinstance(failure, StepFailure)
    assert (failure.code, "certificate" in failure.message) == ("tls", True)
    assert server.requests == []


async def test_a_server_without_tls(client) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(StepFailure) as caught:
        await client.send(HttpRequest("GET", f"https://127.0.0.1:{port}/"), Activity("test", 0))
    assert caught.value.code == "tls"
    listener.close()


async def test_cancelled_in_the_handshake(client) -> None:
    arrived = asyncio.Event()
    ended = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            ended.set()
            writer.close()

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    activity = Activity("test", 0)
    request = HttpRequest("GET", f"https://127.0.0.1:{port}/")
    task = asyncio.create_task(client.send(request, activity))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()
    assert client.open_connections == 0
    assert not activity.effect_possible
    listener.close()


async def test_names_resolve_in_threads_of_their_own() -> None:
    resolver = Resolver()
    found = await resolver.resolve("localhost", 80, Claim())
    assert {target[1][1] for target in found} == {80}
    with pytest.raises(StepFailure) as caught:
        await resolver.resolve("a" * 70 + ".test", 80, Claim())
    assert caught.value.code == "dns"
    resolver.close()


async def test_names_that_do_not_resolve_hold_up_their_own_app_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, begun = threading.Event(), []

    def look_up(host: str, port: int, flags: int) -> list[Target]:
        begun.append(host)
        if host == "slow.test":
            assert gate.wait(30)
        return [(2, ("192.0.2.1", port))]

    monkeypatch.setattr(network, "_look_up", look_up)
    resolver = Resolver(threads=4)
    claims = [Claim("app_a") for _ in range(6)]
    slow = [asyncio.ensure_future(resolver.resolve("slow.test", 80, claim)) for claim in claims]
    assert await resolver.resolve("fast.test", 80, Claim("app_b"))
    assert begun.count("slow.test") <= 2
    assert all("look-up" in claim.waits_for for claim in claims[2:])
    for task in slow[:2]:
        task.cancel()
    await asyncio.gather(*slow[:2], return_exceptions=True)
    assert await resolver.resolve("fast.test", 80, Claim("app_b"))
    assert begun.count("slow.test") <= 2  # those that were left alone still have their threads
    gate.set()
    assert len(await asyncio.gather(*slow[2:])) == 4
    resolver.close()


async def _on_uvloop(ends: list[str]) -> None:
    requests = 0
    answered = asyncio.Event()
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                requests += 1
                if requests > 3:
                    answered.set()
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            ends.append(type(error).__name__)
            ended.set()
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = HttpClient(EgressPolicy(["127.0.0.1"]))
    request = HttpRequest("GET", f"http://127.0.0.1:{port}/")
    for _ in range(3):
        assert (await client.send(request, Activity("test", 0))).body == b"ok"
    assert client.open_connections == 1
    task = asyncio.create_task(client.send(request, Activity("test", 0)))
    await answered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert client.open_connections == 0
    await ended.wait()
    await client.close()
    listener.close()


def test_on_uvloop() -> None:
    ends: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_on_uvloop(ends))
    assert ends == ["ConnectionResetError"]
