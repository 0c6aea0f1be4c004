"""Every setting, read from the environment and checked once. Acting on it is left to the module that uses it."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from moorline.errors import ConfigurationError
from moorline.prices import Price, prices_in
from moorline_checkpoint.messages import OnBusy
from moorline_migrations.dsn import asyncpg_dsn
from moorline_migrations.identifiers import quoted

OnCancel = Literal["finish", "release"]
"""What happens to a turn whose caller is cancelled."""

DeviceKey = Literal["device_id", "user_id", "wa_id", "session_id"]

DEVICE_KEYS: tuple[DeviceKey, ...] = get_args(DeviceKey)
"""The keys that may hold a context's device."""

CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,32}:")
"""How the ID of a device begins if it has a channel."""

SERVERLESS = ("AWS_LAMBDA_FUNCTION_NAME", "VERCEL")
"""Variables that are set on platforms whose disk does not outlast a call."""

PREFIX = "MOORLINE_"
"""The prefix of Moorline's own variables; a field that is read from another variable has it as its alias."""

_USERINFO = re.compile("//.*@")


def _plain_dsn(dsn: str) -> str:
    try:
        return asyncpg_dsn(dsn)
    except ConfigurationError as error:
        raise ValueError(str(error).removeprefix("DATABASE_URL ")) from None


def _http_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]\S*", url):
        raise ValueError("must look like https://host/v1")
    return url


def _redis_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            usable = bool(parts.path)
        else:
            database = re.fullmatch(r"(/\d*)?", parts.path)
            usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname and database) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must look like redis://:password@host:6379/0")
    return url


def _zone_name(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be an IANA time zone such as Europe/Berlin") from None


def _schema_name(name: str) -> str:
    try:
        quoted(name)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return name


def _channel_name(name: str) -> str:
    if not CHANNEL.fullmatch(f"{name}:"):
        raise ValueError("the name of a channel is 1 to 32 letters, digits, dots, hyphens or underscores")
    return name


def _words(value: object) -> object:
    """The environment gives words separated by commas, code gives a collection of them; case does not matter."""
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple | set | frozenset):
        return value
    return frozenset(word.strip().casefold() if isinstance(word, str) else word for word in words) - {""}


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Channel = Annotated[str, AfterValidator(_channel_name)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EnvironmentSettings(BaseSettings):
    """Settings that are frozen and read from the environment.

    Each is read from its environment variable (its alias, or `MOORLINE_` and the field's name), unless it is passed
    by name; an empty variable counts as unset. Raises `ConfigurationError`, which names the variable and what it may
    hold, and never shows a secret.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_ignore_empty=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            faults = [cls._fault(fault["loc"], fault["msg"]) for fault in error.errors(include_input=False)]
        # Raised outside the handler, so that pydantic's error, which holds the secrets, is in no traceback.
        raise ConfigurationError(f"Wrong settings. {'; '.join(faults)}.")

    @classmethod
    def _fault(cls, where: tuple[int | str, ...], message: str) -> str:
        name = str(where[0]) if where else ""
        field = cls.model_fields.get(name)
        variable = name if field is None else field.validation_alias or f"{PREFIX}{name.upper()}"
        return ": ".join(filter(None, (str(variable), message.removeprefix("Value error, "))))


class Settings(EnvironmentSettings):
    """The settings of one runtime."""

    database_url: Annotated[_Text, AfterValidator(_plain_dsn)] | None = Field(
        default=None, validation_alias="DATABASE_URL", repr=False
    )
    """The PostgreSQL that holds everything, also in SQLAlchemy's `postgresql+asyncpg://` spelling. Unset: an
    embedded PostgreSQL in the data folder."""

    replica_url: Annotated[_Text, AfterValidator(_plain_dsn)] | None = Field(default=None, repr=False)
    """A streaming replica of that database, which answers transcripts, lists, statistics and exports."""

    replica_max_lag: _Seconds = 60
    """Seconds that the replica may be behind; if it is further, the primary answers."""

    schema_name: Annotated[_Text, AfterValidator(_schema_name)] = Field(
        default="public", validation_alias="MOORLINE_SCHEMA"
    )
    """The schema of the tables."""

    data: Path | None = None
    """The folder for the embedded PostgreSQL and the chat's device ID; see `data_folder`."""

    pool_max: int = Field(default=5, ge=1, le=1000)
    """The most connections to the database, per process and event loop."""

    statement_cache_size: int = Field(default=100, ge=0)
    """Prepared statements kept per connection; 0 for a PgBouncer in transaction mode below 1.21."""

    redis_url: Annotated[_Text, AfterValidator(_redis_url)] | None = Field(default=None, repr=False)
    """The Redis that sessions are written to after the database has them, for readers, and in which rate limits are
    counted for all processes. It never decides a turn. Unset: none."""

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The key of the model server. If neither it nor the base URL is set, the rehearsal model answers."""

    openai_base_url: Annotated[_Text, AfterValidator(_http_url)] | None = Field(
        default=None, validation_alias="OPENAI_BASE_URL"
    )
    """An OpenAI-compatible server to use instead of OpenAI's; it may be one that needs no key."""

    openai_model: _Text = Field(default="gpt-4.1-mini", validation_alias="OPENAI_MODEL")
    """The model of the router and of every agent that has none of its own."""

    model_api: Literal["chat", "responses"] = "chat"
    """Whether the model's server is asked by the chat-completions API, which most have, or by the Responses API."""

    model_timeout: _Seconds = 30
    """Seconds for one answer of a model, including retries."""

    model_retries: int = Field(default=2, ge=0, le=10)
    """How often a failed request to the model server is sent again."""

    tool_rounds: PositiveInt = 8
    """How often an agent may call tools in a turn before it has to answer."""

    tool_timeout: _Seconds = 30
    """Seconds that a call of a tool may take, unless the tool says so itself, and a check; then it is given up."""

    prompt_tokens: PositiveInt = 60_000
    """How many tokens a request to an agent's model may have, by estimate: instructions, tools and as much of the
    conversation as fits. The message that is being answered is always shown; if it is too long, without its middle."""

    summary_model: _Text | None = None
    """The model that sums up what no longer fits into requests, or `off`. Unset: each agent's own."""

    default_session_ttl: int = Field(default=86400, ge=1, le=2**31 - 1, validation_alias="DEFAULT_SESSION_TTL")
    """Seconds without activity after which a session ends, unless its agent says otherwise."""

    cleanup_interval: _Seconds = 300
    """Seconds between two cleanups by `moorline serve`, whatever the number of its processes, give or take a fifth."""

    prices: Annotated[Mapping[str, Price], NoDecode, BeforeValidator(prices_in)] = Field(default_factory=dict)
    """What a million tokens of each model cost, for figures: JSON by model, with `input`, `output` and `currency`."""

    keep_turns: int = Field(default=20, ge=1, le=10_000)
    """Checkpoints are kept for at least this many of a device's latest turns, and for fewer than twice as many."""

    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    """Days after which a cleanup removes transcripts, messages, effects, checkpoints and figures. Unset: never."""

    file_types: Annotated[frozenset[str], NoDecode, BeforeValidator(_words), Field(min_length=1)] = frozenset(
        {"image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain"}
    )
    """The media types of files that a message may have, separated by commas. What a file is is read from its bytes."""

    file_max: int = Field(default=10_000_000, ge=1, le=100_000_000)
    """The most bytes of a file."""

    files_max: int = Field(default=10, ge=0, le=100)
    """The most files of a message; 0: none."""

    files_total_max: int = Field(default=20_000_000, ge=1, le=100_000_000)
    """The most bytes of all files of a message."""

    files_kept_max: int = Field(default=100_000_000, ge=1, le=150_000_000)
    """The most bytes of files that are kept of a conversation, about; those that came longest ago go first."""

    file_timeout: _Seconds = 10
    """Seconds in which a file must be fetched from its address."""

    turn_timeout: _Seconds = 60
    """Seconds for a whole turn, including waiting."""

    on_busy: OnBusy = "wait"
    """What happens to a message that finds its device busy."""

    queue_max: int = Field(default=200, ge=1, le=10_000)
    """Messages of one device that may wait at the same time; further ones get `SessionBusy`."""

    on_cancel: OnCancel = "finish"
    """What happens to a turn whose caller is cancelled."""

    time_zone: Annotated[str, AfterValidator(_zone_name)] | None = Field(
        default=None, validation_alias="MOORLINE_TIME_ZONE"
    )
    """The IANA time zone in which the scheduling agent counts "today" and "tomorrow". Unset: UTC, or with the embedded
    database the demonstration's."""

    bookings_per_day: PositiveInt = 10
    """How many appointments a device may make in 24 hours with the scheduling agent that ships."""

    confirm_bookings: bool = True
    """Whether the scheduling agent that ships asks for a yes before it books, moves or cancels."""

    on_store_down: Literal["fail", "stateless"] = "fail"
    """What happens to a message while the database cannot be reached: it fails with `StoreUnavailable`, so that it is
    delivered again, or it is answered without memory and without effects."""

    device_ids: Literal["any", "uuid"] = "any"
    """Which device IDs are accepted: any printable text without spaces, or UUIDs only."""

    device_keys: Annotated[frozenset[DeviceKey], NoDecode, BeforeValidator(_words), Field(min_length=1)] = frozenset(
        DEVICE_KEYS
    )
    """The keys of a context that may name its device, separated by commas; a context that uses another one is
    refused."""

    channels: Annotated[frozenset[_Channel], NoDecode, BeforeValidator(_words)] = frozenset()
    """The names of channels, separated by commas: a device ID that begins with one of them and a colon is accepted only
    with the context's `channel`."""

    require_message_id: bool = False
    """Whether a message without a `message_id` is refused: without one, a message that is sent again counts as new."""

    start_over: Annotated[frozenset[str], NoDecode, BeforeValidator(_words)] = frozenset({"start over"})
    """The messages with which a person starts over, separated by commas."""

    log_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    """The key for the tags that stand for devices in logs. Unset: a key that is kept in the database."""

    tune_gc: bool = False
    """Whether the garbage collector skips what is alive after the process's first turn and comes less often from then
    on, which saves a fifth of a busy turn's time. This affects the whole process, so the program decides; the command
    `moorline` does it."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    """The level of the logger `moorline`."""

    def __repr_args__(self) -> Any:
        """Pydantic's, without the user and the password that a base URL may have."""
        return [
            (name, _USERINFO.sub("//***@", value) if isinstance(value, str) else value)
            for name, value in super().__repr_args__()
        ]

    @property
    def has_model(self) -> bool:
        """Whether a model server is named; without one the rehearsal model answers."""
        return self.openai_api_key is not None or self.openai_base_url is not None

    @property
    def data_folder(self) -> Path:
        """`MOORLINE_DATA`, or else the platform's folder for the data of a user's programs."""
        try:
            return (self.data or _platform_folder()).expanduser().absolute()
        except RuntimeError:
            raise ConfigurationError("There is no home folder to keep data in; set MOORLINE_DATA.") from None

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if max(self.file_max, self.files_total_max) > self.files_kept_max:
            raise ConfigurationError(
                "Wrong settings. MOORLINE_FILES_KEPT_MAX: must not be less than MOORLINE_FILE_MAX and "
                "MOORLINE_FILES_TOTAL_MAX: the files of a message are kept together."
            )
        return self

    @model_validator(mode="after")
    def _lasting(self) -> Self:
        platform = next((name for name in SERVERLESS if os.environ.get(name)), None)
        if platform and self.database_url is None:
            raise ConfigurationError(
                f"On a serverless platform ({platform} is set) an embedded database would forget every "
                "conversation; set DATABASE_URL."
            )
        if platform and not self.has_model:
            raise ConfigurationError(
                f"On a serverless platform ({platform} is set) the rehearsal model would answer people; set "
                "OPENAI_API_KEY or OPENAI_BASE_URL."
            )
        return self


def load_settings() -> Settings:
    """The settings of the environment. Raises `ConfigurationError`."""
    return Settings()


def _platform_folder() -> Path:
    match sys.platform:
        case "darwin":
            base = Path.home() / "Library" / "Application Support"
        case "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        case _:
            base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "moorline"
