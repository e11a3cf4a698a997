"""Where hints wait on NATS: one JetStream stream a kind, one consumer that all nodes share."""

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, BadRequestError
from taskiq import BrokerMessage
from taskiq_nats import PullBasedJetStreamBroker

from insula.jobs.taskiq_jobs import HINT_MAX, Refused, owner_of

AGE_MAX = 3600.0
HINTS_MAX = 100_000
OWNER_HINTS_MAX = 1_000
BYTES_MAX = 64 * 1024 * 1024
ACKNOWLEDGED_WITHIN = 30.0
DELIVERED_MAX = 5
_FETCH_WITHIN = 5.0
_REQUEST_WITHIN = 2.0
_CONSUMER = "nodes"
_FULL = frozenset({10077, 10047, 10026})
"""Codes of the broker: most messages, of a subject or at all; not enough memory or storage."""


class JetStreamHints(PullBasedJetStreamBroker):
    """taskiq's JetStream broker on a client that is already connected, and stays another's.

    Each owner has a subject of its own, so that the stream can keep one from filling it. It stands
    in the broker's memory: a hint that is lost with it is offered again from its row.
    """

    def __init__(self, client: Client, prefix: str, kind: str) -> None:
        self._root = f"{prefix}.jobs.{kind}"
        super().__init__(
            servers=[],
            subject=f"{self._root}.*",
            stream_name=f"{prefix}.jobs.{kind}".replace(".", "_"),
            durable=_CONSUMER,
            pull_consume_batch=1,
            pull_consume_timeout=_FETCH_WITHIN,
        )
        self.client = client  # type: ignore[misc]  # the library would make and connect its own
        self.stream_config = _stream(self.stream_name, self.subject)
        self.consumer_config = _consumer()

    async def startup(self) -> None:
        """Make the stream and the consumer, or have them as they should be."""
        self.js = self.client.jetstream(timeout=_REQUEST_WITHIN)
        try:
            await self.js.add_stream(config=self.stream_config)
        except BadRequestError:
            await self.js.update_stream(config=self.stream_config)
        await self.js.add_consumer(stream=self.stream_name, config=self.consumer_config)
        self.consumer: JetStreamContext.PullSubscription = await self.js.pull_subscribe_bind(
            _CONSUMER, self.stream_name
        )

    async def kick(self, message: BrokerMessage) -> None:
        """Store a hint below its owner's subject.

        Raises:
            Refused: as many of this owner, or of all, wait already.
        """
        try:
            await self.js.publish(f"{self._root}.{owner_of(message)}", message.message)
        except APIError as error:
            if error.err_code in _FULL:
                raise Refused("as many wait already") from None
            raise

    async def shutdown(self) -> None:
        """Let go of the consumer's inbox; the client stays."""
        if not self.client.is_closed:
            await self.consumer.unsubscribe()


def _stream(name: str, subject: str) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subject],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.MEMORY,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_age=AGE_MAX,
        max_msgs=HINTS_MAX,
        max_msgs_per_subject=OWNER_HINTS_MAX,
        max_bytes=BYTES_MAX,
        max_msg_size=HINT_MAX,
    )


def _consumer() -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=_CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACKNOWLEDGED_WITHIN,
        max_deliver=DELIVERED_MAX,
        max_ack_pending=HINTS_MAX,
    )
