"""Settings come from the environment or from code; the error for a wrong one names it, and never shows a secret."""

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from moorline.errors import ConfigurationError
from moorline.settings import SERVERLESS, Settings, load_settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment without Moorline's settings."""
    for name in os.environ:
        if name in SERVERLESS or re.match("MOORLINE_|OPENAI_|DATABASE_URL|DEFAULT_SESSION_TTL", name, re.IGNORECASE):
            monkeypatch.delenv(name)


def refused(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**values)
    return str(caught.value)


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "DATABASE_URL": "postgresql://here/name",
        "MOORLINE_SCHEMA": "chat",
        "MOORLINE_DATA": "/var/data",
        "MOORLINE_POOL_MAX": "7",
        "MOORLINE_STATEMENT_CACHE_SIZE": "0",
        "MOORLINE_REDIS_URL": "rediss://:secret@there:6380/2",
        "OPENAI_API_KEY": "sk-1",
        "OPENAI_BASE_URL": "http://localhost:8000/v1",
        "OPENAI_MODEL": "small",
        "MOORLINE_MODEL_API": "responses",
        "MOORLINE_MODEL_TIMEOUT": "2.5",
        "MOORLINE_MODEL_RETRIES": "0",
        "MOORLINE_TOOL_ROUNDS": "3",
        "MOORLINE_TOOL_TIMEOUT": "4",
        "MOORLINE_PROMPT_TOKENS": "5000",
        "MOORLINE_SUMMARY_MODEL": "small",
        "DEFAULT_SESSION_TTL": "60",
        "MOORLINE_CLEANUP_INTERVAL": "60",
        "MOORLINE_PRICES": '{"small": {"input": 1, "output": 2}}',
        "MOORLINE_KEEP_TURNS": "5",
        "MOORLINE_RETENTION_DAYS": "30",
        "MOORLINE_FILE_TYPES": "image/PNG, text/plain",
        "MOORLINE_FILE_MAX": "50",
        "MOORLINE_FILES_MAX": "3",
        "MOORLINE_FILES_TOTAL_MAX": "90",
        "MOORLINE_FILES_KEPT_MAX": "500",
        "MOORLINE_FILE_TIMEOUT": "2",
        "MOORLINE_TURN_TIMEOUT": "9",
        "MOORLINE_QUEUE_MAX": "9",
        "MOORLINE_ON_BUSY": "reject",
        "MOORLINE_ON_CANCEL": "release",
        "MOORLINE_ON_STORE_DOWN": "stateless",
        "MOORLINE_DEVICE_IDS": "uuid",
        "MOORLINE_REPLICA_URL": "postgresql+asyncpg://there/name",
        "MOORLINE_REPLICA_MAX_LAG": "5",
        "MOORLINE_DEVICE_KEYS": "wa_id, user_id",
        "MOORLINE_CHANNELS": "WhatsApp,web",
        "MOORLINE_REQUIRE_MESSAGE_ID": "true",
        "MOORLINE_START_OVER": "Reset, start OVER,",
        "MOORLINE_TIME_ZONE": "Europe/Berlin",
        "MOORLINE_BOOKINGS_PER_DAY": "3",
        "MOORLINE_CONFIRM_BOOKINGS": "false",
        "MOORLINE_LOG_KEY": "a key of sixteen",
        "MOORLINE_TUNE_GC": "true",
        "MOORLINE_LOG_LEVEL": "debug",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = {
        "database_url": "postgresql://here/name",
        "replica_url": "postgresql://there/name",
        "replica_max_lag": 5,
        "schema_name": "chat",
        "data": Path("/var/data"),
        "pool_max": 7,
        "statement_cache_size": 0,
        "redis_url": "rediss://:secret@there:6380/2",
        "openai_api_key": SecretStr("sk-1"),
        "openai_base_url": "http://localhost:8000/v1",
        "openai_model": "small",
        "model_api": "responses",
        "model_timeout": 2.5,
        "model_retries": 0,
        "tool_rounds": 3,
        "tool_timeout": 4.0,
        "prompt_tokens": 5000,
        "summary_model": "small",
        "default_session_ttl": 60,
        "cleanup_interval": 60,
        "prices": {"small": {"input": 1, "output": 2, "currency": "USD"}},
        "keep_turns": 5,
        "retention_days": 30,
        "file_types": {"image/png", "text/plain"},
        "file_max": 50,
        "files_max": 3,
        "files_total_max": 90,
        "files_kept_max": 500,
        "file_timeout": 2,
        "turn_timeout": 9,
        "queue_max": 9,
        "on_busy": "reject",
        "on_cancel": "release",
        "on_store_down": "stateless",
        "device_ids": "uuid",
        "device_keys": {"wa_id", "user_id"},
        "channels": {"whatsapp", "web"},
        "require_message_id": True,
        "start_over": {"reset", "start over"},
        "time_zone": "Europe/Berlin",
        "bookings_per_day": 3,
        "confirm_bookings": False,
        "log_key": SecretStr("a key of sixteen"),
        "tune_gc": True,
        "log_level": "DEBUG",
    }
    assert load_settings().model_dump() == expected
    assert set(expected) == set(Settings.model_fields)


def test_what_is_passed_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://there/name")
    monkeypatch.setenv("MOORLINE_POOL_MAX", "7")
    assert Settings(database_url="postgresql://here/name", pool_max=3).model_dump(
        include={"database_url", "pool_max"}
    ) == {"database_url": "postgresql://here/name", "pool_max": 3}
    assert Settings(database_url=None).database_url is None


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert Settings() == Settings(database_url=None, openai_api_key=None)


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_LEVEL", "DATA", "POOL_MAX", "ON_BUSY", "SCHEMA_NAME"):
        monkeypatch.setenv(name, "other")
    assert Settings() == Settings(log_level="INFO", data=None)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().pool_max = 3


def test_a_database_url_is_taken_in_sqlalchemys_spelling_too() -> None:
    assert Settings(database_url="postgresql+asyncpg://u@h/n?ssl=require").database_url == (
        "postgresql://u@h/n?sslmode=require"
    )


@pytest.mark.parametrize(
    ("name", "value", "variable", "allowed"),
    [
        ("database_url", "mysql://h/n", "DATABASE_URL", "postgresql://user:password@host:5432/name"),
        ("database_url", "host=h dbname=n", "DATABASE_URL", "postgresql://user:password@host:5432/name"),
        ("schema_name", "My Schema", "MOORLINE_SCHEMA", "63 of a-z, 0-9 and _"),
        ("pool_max", "many", "MOORLINE_POOL_MAX", "integer"),
        ("pool_max", 0, "MOORLINE_POOL_MAX", "greater than or equal to 1"),
        ("statement_cache_size", -1, "MOORLINE_STATEMENT_CACHE_SIZE", "greater than or equal to 0"),
        ("redis_url", "localhost:6379", "MOORLINE_REDIS_URL", "redis://:password@host:6379/0"),
        ("redis_url", "redis://host:port/0", "MOORLINE_REDIS_URL", "redis://:password@host:6379/0"),
        ("redis_url", "redis:///0", "MOORLINE_REDIS_URL", "redis://:password@host:6379/0"),
        ("redis_url", "redis://host/zero", "MOORLINE_REDIS_URL", "redis://:password@host:6379/0"),
        ("redis_url", "unix:", "MOORLINE_REDIS_URL", "redis://:password@host:6379/0"),
        ("default_session_ttl", 0, "DEFAULT_SESSION_TTL", "greater than or equal to 1"),
        ("default_session_ttl", 2**31, "DEFAULT_SESSION_TTL", "less than or equal to 2147483647"),
        ("keep_turns", 0, "MOORLINE_KEEP_TURNS", "greater than or equal to 1"),
        ("files_kept_max", 9, "MOORLINE_FILES_KEPT_MAX", "files of a message are kept together"),
        ("retention_days", 0, "MOORLINE_RETENTION_DAYS", "greater than or equal to 1"),
        ("turn_timeout", "inf", "MOORLINE_TURN_TIMEOUT", "finite"),
        ("model_timeout", 0, "MOORLINE_MODEL_TIMEOUT", "greater than 0"),
        ("openai_base_url", "localhost:8000", "OPENAI_BASE_URL", "https://host/v1"),
        ("openai_model", " ", "OPENAI_MODEL", "at least 1 character"),
        ("on_busy", "queue", "MOORLINE_ON_BUSY", "'wait'"),
        ("device_ids", "all", "MOORLINE_DEVICE_IDS", "'any' or 'uuid'"),
        ("device_keys", "phone", "MOORLINE_DEVICE_KEYS", "'device_id', 'user_id', 'wa_id' or 'session_id'"),
        ("channels", "what's app", "MOORLINE_CHANNELS", "1 to 32 letters"),
        ("time_zone", "Moon/Tycho", "MOORLINE_TIME_ZONE", "such as Europe/Berlin"),
        ("log_key", "too short", "MOORLINE_LOG_KEY", "at least 16"),
        ("log_level", "LOUD", "MOORLINE_LOG_LEVEL", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("start_over", 5, "MOORLINE_START_OVER", "frozenset"),
        ("pool_size", 5, "pool_size", "not permitted"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: object, variable: str, allowed: str) -> None:
    message = refused(**{name: value})
    assert re.search(rf"\b{variable}: ", message)
    assert allowed in message


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = refused(pool_max=0, log_level="LOUD")
    assert "MOORLINE_POOL_MAX" in message
    assert "MOORLINE_LOG_LEVEL" in message


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "-".join(("hunter", "2"))
    settings = Settings(
        database_url=f"postgresql://u:{secret}@h/n",
        redis_url=f"redis://:{secret}@h",
        openai_api_key=SecretStr(secret),
        log_key=SecretStr(secret * 2),
    )
    assert secret not in f"{settings!r} {settings}"
    monkeypatch.setenv("DATABASE_URL", f"mysql://u:{secret}@h/n")
    monkeypatch.setenv("OPENAI_BASE_URL", secret)
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("platform", SERVERLESS)
def test_on_a_serverless_platform_no_default_forgets_or_pretends(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(platform, "1")
    assert re.search(rf"{platform}.*DATABASE_URL", refused(openai_base_url="http://h/v1"))
    assert re.search(rf"{platform}.*OPENAI_API_KEY", refused(database_url="postgresql://h/n"))
    assert Settings(database_url="postgresql://h/n", openai_api_key=SecretStr("key")).has_model
    assert Settings(database_url="postgresql://h/n", openai_base_url="http://h/v1").has_model


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.local/share/moorline"),
        ("linux", {"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, "/data/moorline"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Application Support/moorline"),
        ("linux", {"HOME": "/home/me", "MOORLINE_DATA": "~/chat"}, "/home/me/chat"),
    ],
)
def test_the_data_folder_is_the_platforms_or_the_chosen_one(
    platform: str, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings().data_folder == Path(folder)


def test_a_data_folder_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="MOORLINE_DATA"):
        _ = Settings(data=Path("~no-such-user/chat")).data_folder


def test_what_is_shown_of_settings_has_no_password() -> None:
    shown = repr(Settings(openai_base_url="https://somebody:hush@models.example/v1"))
    assert "hush" not in shown
    assert "somebody" not in shown
    assert "//***@models.example/v1" in shown
