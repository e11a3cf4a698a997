"""Signals over any wire: a channel for each subject, and one of the node's own for its answers."""

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable

import structlog

from insula.jobs.seldom import Seldom
from insula.jobs.signals import (
    MESSAGE_MAX,
    End,
    Handler,
    Heard,
    NoAnswer,
    check_subject,
    is_subject,
)
from insula.jobs.tasks import Tasks
from insula.jobs.wire import Packet, channel_of
from insula.jobs.wire_link import Interest, WireLink

_ANSWERS_MAX = 256
_STILL_THERE_EVERY = 1.0
"""Seconds after which it is looked whether whoever answers has died meanwhile."""
_MESSAGES, _QUESTIONS, _ANSWERS = "m", "q", "a"
_ANSWERED, _FAILED = b"+", b"-"
_QUESTION = re.compile(rb"(insula_a_[0-9a-f]{32}) (\d{1,20})\n")
_ANSWER = re.compile(rb"(\d{1,20})([+-])")

log = structlog.get_logger("insula.jobs")


class WireSignals:
    """A node's signals over a link; all subjects stand below the prefix, which is the installation.

    The link is another's: it is neither started nor closed here.
    """

    def __init__(self, link: WireLink, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[bytes | NoAnswer]] = {}
        self._returns: list[Callable[[], None]] = []
        self._tasks = Tasks(_ANSWERS_MAX)
        self._own: set[Interest] = set()
        self._seldom = Seldom()
        self._lost = 0
        self._was_up = False
        self._closed = False
        self._answers = channel_of(_ANSWERS, secrets.token_hex(16))
        self._mail = Interest(self._answers, self._answered)
        link.when_up, link.when_down, link.when_nobody = self._up, self._down, self._nobody

    async def open(self) -> None:
        """Begin to hear answers."""
        await self._link.stand(self._mail)

    @property
    def connected(self) -> bool:
        """Whether a broker is there and knows to what this node listens."""
        return self._link.wire is not None and not self._closed

    @property
    def trouble(self) -> str | None:
        """Why the broker cannot be reached."""
        return None if self.connected else self._link.trouble

    @property
    def lost(self) -> int:
        """How many messages were dropped here since the start."""
        return self._lost + self._link.lost

    def publish(self, subject: str, body: bytes = b"") -> None:
        """Hand it to the task that sends; dropped while no broker is there or too much waits."""
        if (
            self._closed
            or len(body) > MESSAGE_MAX
            or not is_subject(subject)
            or not self._link.put(Packet(self._channel(_MESSAGES, subject), body))
        ):
            self._lost += 1

    async def listen(self, subject: str, heard: Heard) -> End:
        """Call ``heard`` with what is published; returns when the broker knows of it."""

        def got(frame: bytes) -> None:
            if len(frame) > MESSAGE_MAX:
                self._refuse(subject, frame)
                return
            try:
                heard(frame)
            except Exception:
                log.exception("signal.listener_failed", subject=subject)

        channel = self._channel(_MESSAGES, check_subject(subject))
        return await self._stand(Interest(channel, got))

    async def answer(self, subject: str, handler: Handler) -> End:
        """Answer what is asked; of several nodes that answer all are told."""

        def got(frame: bytes) -> None:
            head = _QUESTION.match(frame)
            if not frame:  # whoever asked wants to know whether anybody is there
                return
            if head is None or len(frame) > MESSAGE_MAX + head.end():
                self._refuse(subject, frame)
                return
            back, number, body = head[1].decode(), head[2], frame[head.end() :]
            if not self._tasks.start(self._reply(subject, handler, back, number, body)):
                self._say(back, number + _FAILED)

        channel = self._channel(_QUESTIONS, check_subject(subject))
        return await self._stand(Interest(channel, got, answers=True))

    async def ask(self, subject: str, body: bytes, within: float) -> bytes:
        """Ask whoever answers there; gives up at once where nobody does, or the broker goes away,
        and within a second where whoever answers has died.

        Raises:
            NoAnswer: see ``Signals``.
        """
        channel = self._channel(_QUESTIONS, check_subject(subject))
        if not self.connected:
            raise NoAnswer("the broker is away")
        if len(body) > MESSAGE_MAX:
            raise NoAnswer(f"a question of {len(body)} bytes is too long to be sent")
        number = next(self._numbers)
        answer: asyncio.Future[bytes | NoAnswer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            frame = f"{self._answers} {number}\n".encode() + body
            if not self._link.put(Packet(channel, frame, number)):
                raise NoAnswer("too much waits to be sent")
            async with asyncio.timeout(within):
                found = await self._wait(channel, number, answer)
        except TimeoutError:
            raise NoAnswer(f"nothing came within {within:g} s") from None
        finally:
            self._asked.pop(number, None)
        if isinstance(found, NoAnswer):
            raise found
        return found

    async def _wait(
        self, channel: str, number: int, answer: "asyncio.Future[bytes | NoAnswer]"
    ) -> bytes | NoAnswer:
        """Wait, and see every now and then whether there is still somebody to answer."""
        while True:
            done, _ = await asyncio.wait([answer], timeout=_STILL_THERE_EVERY)
            if done:
                return answer.result()
            self._link.put(Packet(channel, b"", number))

    def on_return(self, back: Callable[[], None]) -> None:
        """Have ``back`` called whenever the connection came back."""
        self._returns.append(back)

    async def close(self) -> None:
        """End all listening and answering; the link stays."""
        self._closed = True
        for interest in (*self._own, self._mail):
            self._link.leave(interest)
        self._own.clear()
        self._give_up("this node has closed")
        await self._tasks.close()

    def _refuse(self, subject: str, frame: bytes) -> None:
        """Drop what no node of ours has said: whoever can reach the broker can say anything."""
        self._lost += 1
        self._seldom.warn("signal.unreadable", subject=subject, bytes=len(frame))

    def _channel(self, kind: str, subject: str) -> str:
        return channel_of(kind, f"{self._prefix}.{subject}")

    async def _stand(self, interest: Interest) -> End:
        self._own.add(interest)

        def end() -> None:
            if interest in self._own:
                self._own.discard(interest)
                self._link.leave(interest)

        try:
            await self._link.stand(interest)
        except BaseException:  # whoever was to end it does not hear of it
            end()
            raise
        return end

    async def _reply(
        self, subject: str, handler: Handler, back: str, number: bytes, body: bytes
    ) -> None:
        reply = _FAILED
        try:
            answer = await handler(body)
            if len(answer) <= MESSAGE_MAX:
                reply = _ANSWERED + answer
            else:
                log.error("signal.answer_too_long", subject=subject, bytes=len(answer))
        except Exception:
            log.exception("signal.handler_failed", subject=subject)
        self._say(back, number + reply)

    def _say(self, back: str, frame: bytes) -> None:
        if not self._link.put(Packet(back, frame)):
            self._lost += 1

    def _answered(self, frame: bytes) -> None:
        head = _ANSWER.match(frame)
        if head is None or len(frame) > MESSAGE_MAX + head.end():
            self._refuse("answers", frame)
            return
        could = head[2] == _ANSWERED
        found = frame[head.end() :] if could else NoAnswer("whoever answers there could not")
        self._found(int(head[1]), found)

    def _nobody(self, number: int) -> None:
        self._found(number, NoAnswer("nobody answers there"))

    def _give_up(self, why: str) -> None:
        for number in self._asked:
            self._found(number, NoAnswer(why))

    def _found(self, number: int, found: bytes | NoAnswer) -> None:
        answer = self._asked.get(number)
        if answer is not None and not answer.done():  # else it comes too late
            answer.set_result(found)

    def _up(self) -> None:
        if not self._was_up:
            self._was_up = True
            return
        for back in tuple(self._returns):
            try:
                back()
            except Exception:
                log.exception("signal.return_failed")

    def _down(self) -> None:
        self._give_up("the broker went away")
