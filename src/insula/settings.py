"""What an operator can set: one field each, read from ``INSULA_…``, checked at the start."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_MIB = 1024 * 1024
_TIB = 1024 * 1024 * _MIB
_DAY = 24 * 60 * 60
_CENTURY = 100 * 365
_MOST = 2**31 - 1
_BROKERS = ("nats", "tls")
_REDIS = ("redis", "rediss")
_POSTGRES = ("postgresql://", "postgres://")
_DATABASE = "database"
_KEY_MIN, _KEY_MAX = 20, 150
_SENDABLE = re.compile(f"[!-~]{{{_KEY_MIN},{_KEY_MAX}}}")

Network = IPv4Network | IPv6Network
Listed = Annotated[tuple[str, ...], NoDecode]
Networks = Annotated[tuple[Network, ...], NoDecode]
Priced = Literal["browser", "code", "http_request", "service", "workflow"]
Prices = Annotated[
    dict[Priced, Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]], NoDecode
]
# More than any machine has, and less than what the database or a worker could not be told.
Count = Annotated[int, Field(le=_MOST)]
Size = Annotated[int, Field(le=_TIB)]
Seconds = Annotated[float, Field(gt=0, le=_DAY, allow_inf_nan=False)]


class SettingsError(ValueError):
    """A setting cannot be used; the message names it and says why."""


class Settings(BaseSettings):
    """The installation's settings. Durations are seconds, sizes bytes; lists take commas."""

    model_config = SettingsConfigDict(env_prefix="INSULA_", extra="ignore", frozen=True)

    data_dir: Path = Field(
        Path("insula-data"), description="Folder of the database, the files and the keys."
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(
        None, description="Where callers reach the server; URLs in answers are made from it."
    )
    admin_key: SecretStr | None = Field(
        None,
        description="The key that may create apps; made and kept in the data folder if unset.",
    )
    trusted_proxies: Networks = Field(
        (), description="Addresses or networks whose forwarded headers count."
    )
    cors_origins: Listed = Field(("*",), description="Origins of web pages that may call the API.")
    rate_limit: Count | None = Field(
        None, ge=1, description="Requests a minute for each key and each address; unset: no limit."
    )
    runs_max: Count = Field(1000, ge=1, description="Runs that may be live at once; beyond: 429.")
    runs_share: float = Field(
        0.5, gt=0, le=1, description="Share of the live runs that one app may have."
    )
    app_runs_max: Count | None = Field(
        None, ge=1, description="Live runs of one app at all nodes together; unset: no limit."
    )
    queue_max: Count = Field(
        10_000, ge=1, description="Runs of one app that may wait to begin; beyond: 429."
    )
    body_max: Size = Field(32 * _MIB, ge=1024, description="Largest JSON body.")
    body_rate_min: Size = Field(
        8 * 1024, ge=1, description="Bytes a second at which a body comes in at least."
    )
    file_max: Size = Field(100 * _MIB, ge=1, description="Largest file.")
    blobs_url: str | None = Field(
        None,
        description="Bucket of files, s3://bucket/prefix?endpoint=…&region=…; unset: the disk.",
    )
    blobs_access_key: str | None = Field(None, description="Access key of the bucket.")
    blobs_secret_key: SecretStr | None = Field(None, description="Secret key of the bucket.")
    extract_max: int = Field(2, ge=1, le=64, description="Documents that are read at once.")
    extract_seconds: Seconds = Field(300.0, description="Most time that one document may take.")
    extract_memory: Size = Field(
        512 * _MIB, ge=64 * _MIB, description="Most memory that reading one document may take."
    )
    extract_output: Size = Field(
        16 * _MIB, ge=1024, description="Most that the contents of one document may come to."
    )
    extract_pages: Count = Field(1000, ge=1, description="Most pages of a document that are read.")
    retention: int = Field(
        30 * _DAY,
        ge=-1,
        le=_CENTURY * _DAY,
        description="Seconds until a run's data is erased; -1 keeps it for ever.",
    )
    run_rows_days: int = Field(
        400,
        ge=1,
        le=_CENTURY,
        description="Days until the row of an erased run goes; daily totals stay.",
    )
    database_url: SecretStr | None = Field(
        None, description="`postgresql://…` of the database; unset: SQLite in the data folder."
    )
    database_readers: int = Field(
        4, ge=1, le=64, description="Connections of this node that read from the database."
    )
    secret_keys: SecretStr | None = Field(
        None,
        description="Keys that encrypt stored secrets, 32 bytes in base64 each; the first one "
        "encrypts, all decrypt. Unset: one that is made and kept in the data folder.",
    )
    secret_keys_lost: bool = Field(
        False, description="Remove stored secrets that no key decrypts, at the start."
    )
    synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL", description="FULL: a told status survives a power cut. NORMAL: a crash only."
    )
    egress_allow: Listed = Field(
        (), description="Hosts or networks, besides public addresses, that steps may call."
    )
    sandbox_warm: int = Field(2, ge=0, le=64, description="Sandbox workers kept ready.")
    sandbox_max: int = Field(16, ge=1, le=1024, description="Sandbox workers at most.")
    sandbox_cpu: Seconds = Field(30.0, description="Most processor time of one script.")
    sandbox_wall: Seconds = Field(
        300.0, description="Most time of one script, what it waits for included."
    )
    sandbox_memory: Size = Field(
        128 * _MIB, ge=8 * _MIB, description="Most memory of one script's values."
    )
    sandbox_output: Size = Field(5 * _MIB, ge=1, description="Most that one script may return.")
    sandbox_logs: Size = Field(_MIB, ge=1, description="Most that one script may log.")
    loop_max: Count = Field(
        10_000, ge=1, description="Iterations of a loop; beyond, its step fails."
    )
    run_output_max: Size = Field(
        64 * _MIB, ge=1024, description="Bytes of output and logs of all steps of a run together."
    )
    attempts_max: int = Field(
        3, ge=1, le=100, description="Interrupted attempts after which a step fails."
    )
    step_prices: Prices = Field(
        {},
        description="Credits that each result of a step costs, by its type: "
        "`http_request=0.5,code=0.1`; types that are not named: 0.",
    )
    timeout_http: Seconds = Field(60.0, description="Default limit of an http_request step.")
    timeout_model: Seconds = Field(600.0, description="Default limit of a model step.")
    timeout_code: Seconds = Field(300.0, description="Default limit of a code step.")
    timeout_browser: Seconds = Field(120.0, description="Default limit of a browser step.")
    timeout_service: Seconds = Field(600.0, description="Default limit of a service step.")
    timeout_run: Seconds = Field(3600.0, description="Default limit of a whole run.")
    model_default: str | None = Field(
        None, description="`provider/model` that answers where a step says `auto`."
    )
    mock_file: FilePath | None = Field(
        None, description="Script of the `mock` model provider, for all steps that bring none."
    )

    storage_patience: Seconds = Field(
        60.0, description="How long a run waits for the database; then it fails."
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=_DAY, description="How long live runs may go on when the server is stopped."
    )
    cluster_url: SecretStr | None = Field(
        None,
        description="What carries messages between nodes: brokers, `nats://…`, by comma, or "
        "PostgreSQL: `postgresql://…`, or `database` for the one that is set, or Redis: "
        "`redis://…`; unset: nothing does.",
    )

    @property
    def carrier_url(self) -> SecretStr | None:
        """What carries messages between nodes, with ``database`` spelt out."""
        if self.cluster_url is not None and self.cluster_url.get_secret_value() == _DATABASE:
            return self.database_url
        return self.cluster_url

    @field_validator("cors_origins", "egress_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("step_prices", mode="before")
    @classmethod
    def _by_type(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [piece.partition("=") for piece in value.split(",") if piece.strip()]
        return {name.strip(): price.strip() for name, _, price in pairs}

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        try:
            return tuple(ip_network(part, strict=False) for part in _listed(value))
        except ValueError:  # its words hold the value
            raise ValueError(
                "must be addresses or networks, such as 10.0.0.1 or 10.0.0.0/8, with commas between"
            ) from None

    @field_validator("admin_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        given = value.get_secret_value() if value is not None else None
        if given is not None and not _SENDABLE.fullmatch(given):
            raise ValueError(
                f"must have {_KEY_MIN} to {_KEY_MAX} characters of ASCII, none of them a space, "
                "such as those that `openssl rand -hex 32` prints"
            )
        return value

    @field_validator("cluster_url")
    @classmethod
    def _brokers(cls, value: SecretStr | None) -> SecretStr | None:
        given = value.get_secret_value() if value is not None else _DATABASE
        if given == _DATABASE or given.startswith(_POSTGRES) or _is_address(given, _REDIS):
            return value
        if not all(_is_address(part.strip(), _BROKERS) for part in given.split(",")):
            raise ValueError(
                "must be nats://host:port or tls://host:port, with commas between, or "
                "postgresql://…, redis://…, or the word database"
            )
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(_POSTGRES):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("public_url")
    @classmethod
    def _root(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _is_address(value, ("http", "https")) or any(part in value for part in "?# "):
            raise ValueError("must be an http:// or https:// address without query or fragment")
        return value.rstrip("/")

    @field_validator("model_default")
    @classmethod
    def _model(cls, value: str | None) -> str | None:
        if value is None:
            return None
        provider, _, model = value.partition("/")
        if provider.strip().lower() in ("", "auto") or not model.strip():
            raise ValueError("must be provider/model, such as openai/gpt-5")
        return value


def _listed(value: Any) -> Any:
    """Take a text apart at its commas; anything else stays."""
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


def _is_address(address: str, schemes: tuple[str, ...]) -> bool:
    """Say whether it is an address of one of these schemes, with a host."""
    try:
        parts = urlsplit(address)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def load_settings(**given: Any) -> Settings:
    """Read the environment; ``given`` (from the command line) wins over it.

    Raises:
        SettingsError: a value cannot be used; names every such setting, never its value.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = (
            f"INSULA_{str(problem['loc'][0]).upper() if problem['loc'] else '…'}: {_told(problem)}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("; ".join(problems)) from None


def _told(problem: ErrorDetails) -> str:
    """Say what is wrong with a setting, in the words that ours have, too."""
    message, _, _ = problem["msg"].removeprefix("Value error, ").partition(", unable to parse")
    return re.sub("^(Input|String) should ", "must ", message)
