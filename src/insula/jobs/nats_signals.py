"""Signals over a NATS broker: core subjects, which hold nothing for who is not there."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from insula.jobs.nats_client import is_reply
from insula.jobs.nats_link import TROUBLE, NatsLink
from insula.jobs.signals import (
    MESSAGE_MAX,
    End,
    Handler,
    Heard,
    NoAnswer,
    check_subject,
    is_subject,
)
from insula.jobs.tasks import Tasks, check_cancelled
from insula.kit.tasks import cancels

_ANSWERS_MAX = 256
_UNSENT_MAX = 10_000
_UNSENT_BYTES_MAX = 8 * 1024 * 1024
_TURN = 100
"""Messages that are sent before others have their turn of the event loop."""
_UNHEARD_MAX = 10_000
_UNHEARD_BYTES_MAX = 16 * 1024 * 1024
_ANSWERED, _FAILED = b"+", b"-"

log = structlog.get_logger("insula.jobs")


@dataclass(eq=False, slots=True)
class _Interest:
    """One who listens or answers; the subscription is that of the client which works now."""

    subject: str
    got: Callable[[Msg], None]
    client: Client | None = None
    subscription: Subscription | None = None


@dataclass(slots=True)
class _Unsent:
    """What was published and is not yet with the client, bounded in number and bytes."""

    messages: deque[tuple[str, bytes]] = field(default_factory=deque)
    size: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, subject: str, body: bytes) -> bool:
        if len(self.messages) >= _UNSENT_MAX or self.size + len(body) > _UNSENT_BYTES_MAX:
            return False
        self.messages.append((subject, body))
        self.size += len(body)
        self.arrived.set()
        return True

    def pop(self) -> tuple[str, bytes]:
        subject, body = self.messages.popleft()
        self.size -= len(body)
        return subject, body


class NatsSignals:
    """A node's signals over a link; all subjects stand below the prefix, which is the installation.

    The link is another's: it is neither started nor closed here.
    """

    def __init__(self, link: NatsLink, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._interests: set[_Interest] = set()
        self._unsent = _Unsent()
        self._asking: set[asyncio.Timeout] = set()
        self._returns: list[Callable[[], None]] = []
        self._tasks = Tasks(_ANSWERS_MAX)
        self._endings = Tasks(_UNSENT_MAX)
        self._lost = 0
        self._ready: Client | None = None
        self._was_ready = False
        self._closed = False
        self._size_max = MESSAGE_MAX
        link.beside(self._session)

    @property
    def connected(self) -> bool:
        """Whether a broker is there and knows to what this node listens."""
        return self._ready is not None and self._ready is self._link.client and not self._closed

    @property
    def trouble(self) -> str | None:
        """Why the broker cannot be reached."""
        return None if self.connected else self._link.trouble

    @property
    def lost(self) -> int:
        """How many messages were dropped here since the start."""
        return self._lost

    def publish(self, subject: str, body: bytes = b"") -> None:
        """Hand it to the task that sends; dropped while no broker is there or too much waits."""
        if (
            not self.connected
            or len(body) > min(MESSAGE_MAX, self._size_max)
            or not is_subject(subject)
            or not self._unsent.put(f"{self._prefix}.{subject}", body)
        ):
            self._lost += 1

    async def listen(self, subject: str, heard: Heard) -> End:
        """Call ``heard`` with what is published; returns when the broker knows of it."""

        def got(message: Msg) -> None:
            try:
                heard(message.data)
            except Exception:
                log.exception("signal.listener_failed", subject=subject)

        return await self._stand(_Interest(self._full(subject), got))

    async def answer(self, subject: str, handler: Handler) -> End:
        """Answer what is asked; of several nodes that answer the broker tells all."""

        def got(message: Msg) -> None:
            if not is_reply(message.reply):
                self._refuse(message)
            elif not self._tasks.start(self._reply(subject, handler, message)):
                self._unsent.put(message.reply, _FAILED)

        return await self._stand(_Interest(self._full(subject), got))

    async def ask(self, subject: str, body: bytes, within: float) -> bytes:
        """Ask whoever answers there; gives up at once when the broker goes away.

        Raises:
            NoAnswer: see ``Signals``.
        """
        client = self._ready
        if client is None or not self.connected or _is_stuck(client):
            raise NoAnswer("the broker is away")
        if len(body) > min(MESSAGE_MAX, self._size_max):
            raise NoAnswer(f"a question of {len(body)} bytes is too long to be sent")
        before = cancels()
        full, scope = self._full(subject), asyncio.timeout(within)
        try:
            async with scope:
                self._asking.add(scope)
                message = await client.request(full, body, timeout=within + 1)
        except TimeoutError:
            away = "" if client is self._ready else ": the broker went away"
            raise NoAnswer(f"nothing came within {within:g} s{away}") from None
        except TROUBLE as error:
            raise NoAnswer(f"nobody answers there ({type(error).__name__})") from None
        finally:
            self._asking.discard(scope)
            check_cancelled(before)
        if message.data[:1] != _ANSWERED or len(message.data) > MESSAGE_MAX + 1:
            raise NoAnswer("whoever answers there could not")
        return message.data[1:]

    def on_return(self, back: Callable[[], None]) -> None:
        """Have ``back`` called whenever the connection came back."""
        self._returns.append(back)

    async def close(self) -> None:
        """End all listening and answering; the link stays."""
        self._closed = True
        for interest in tuple(self._interests):
            self._end(interest)
        await self._tasks.close()
        await self._endings.close()

    def _full(self, subject: str) -> str:
        return f"{self._prefix}.{check_subject(subject)}"

    async def _session(self, client: Client) -> None:
        """Stand for all interests at this client, then send until it is of no more use."""
        self._unsent = _Unsent()
        try:
            for interest in tuple(self._interests):
                await self._subscribe(interest, client)
            await self._link.round_trip(client)
            self._size_max = client.max_payload - len(_ANSWERED)
            self._ready = client
            self._tell_returned()
            await self._send(client)
        finally:
            self._ready = None
            now = asyncio.get_running_loop().time()
            for scope in self._asking:
                if not scope.expired():
                    scope.reschedule(now)

    async def _send(self, client: Client) -> None:
        unsent = self._unsent
        while True:
            for _ in range(min(len(unsent.messages), _TURN)):
                subject, body = unsent.pop()
                if _is_stuck(client):
                    self._lost += 1
                else:
                    await client.publish(subject, body)
            if unsent.messages:
                await asyncio.sleep(0)
                continue
            unsent.arrived.clear()
            await unsent.arrived.wait()

    def _tell_returned(self) -> None:
        if not self._was_ready:
            self._was_ready = True
            return
        for back in tuple(self._returns):
            try:
                back()
            except Exception:
                log.exception("signal.return_failed")

    async def _stand(self, interest: _Interest) -> End:
        self._interests.add(interest)
        client = self._link.client
        if client is not None:
            try:
                await self._subscribe(interest, client)
                await self._settle(client)
            except TROUBLE:
                log.debug("signal.stands_later", subject=interest.subject)
            except BaseException:  # whoever was to end it does not hear of it
                self._end(interest)
                raise
        return lambda: self._end(interest)

    async def _settle(self, client: Client) -> None:
        try:
            await self._link.round_trip(client)
        except TROUBLE:
            log.debug("signal.unsettled")

    async def _subscribe(self, interest: _Interest, client: Client) -> None:
        if interest.client is client:
            return
        interest.client = client

        async def got(message: Msg) -> None:
            if interest not in self._interests:
                return
            if len(message.data) > MESSAGE_MAX:
                self._refuse(message)
            else:
                interest.got(message)

        interest.subscription = await client.subscribe(
            interest.subject,
            cb=got,
            pending_msgs_limit=_UNHEARD_MAX,
            pending_bytes_limit=_UNHEARD_BYTES_MAX,
        )

    def _refuse(self, message: Msg) -> None:
        """Drop what no node of ours has said: whoever can reach the broker can say anything."""
        self._lost += 1
        about = {"subject": message.subject, "bytes": len(message.data)}
        self._link.seldom.warn("signal.unreadable", **about)

    def _end(self, interest: _Interest) -> None:
        if interest not in self._interests:
            return
        self._interests.discard(interest)
        subscription = interest.subscription
        if subscription is not None and interest.client is self._link.client:
            self._endings.start(_unsubscribe(subscription))

    async def _reply(self, subject: str, handler: Handler, message: Msg) -> None:
        reply = _FAILED
        try:
            answer = await handler(message.data)
            if len(answer) <= MESSAGE_MAX:
                reply = _ANSWERED + answer
            else:
                log.error("signal.answer_too_long", subject=subject, bytes=len(answer))
        except Exception:
            log.exception("signal.handler_failed", subject=subject)
        try:
            await message.respond(reply)
        except TROUBLE:
            self._lost += 1


def _is_stuck(client: Client) -> bool:
    """Say whether the broker takes so little that nothing more may be put up for it."""
    return client.pending_data_size > _UNSENT_BYTES_MAX


async def _unsubscribe(subscription: Subscription) -> None:
    try:
        await subscription.unsubscribe()
    except TROUBLE:
        log.debug("signal.unsubscribed_late")
