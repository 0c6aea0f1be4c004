"""Entries in Redis: under which keys they stand, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from moorline_checkpoint.sessions import Session, require_agent_name

if TYPE_CHECKING:
    from moorline_checkpoint.lock_versions import LockVersion

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TELL = (files("moorline.cache") / "tell.lua").read_text(encoding="utf-8")
READ = (files("moorline.cache") / "read.lua").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Keys:
    """The keys of one database's devices: keyed hashes, so that nobody who reads Redis learns of a device, and two
    databases that share a server never meet."""

    secret: bytes

    def entry(self, device_id: str) -> str:
        return f"moorline:{self.hashed(device_id, b'session')}"

    def floor(self, device_id: str) -> str:
        return f"{self.entry(device_id)}:floor"

    @property
    def epoch(self) -> str:
        return f"moorline:{self.hashed('', b'epoch')}:epoch"

    def hashed(self, text: str, purpose: bytes) -> str:
        """32 hexadecimal digits."""
        return blake2b(text.encode(errors="surrogatepass"), key=self.secret, digest_size=16, person=purpose).hexdigest()


def arguments(version: LockVersion, *, epoch: str) -> tuple[int, int, int, str, str]:
    """What `tell.lua` is given. The row of an erased device is gone: that is newer than every claim until then."""
    moment = _microseconds(version.read_at)
    fence = moment if version.fence is None else version.fence
    session = version.session
    left = timedelta() if session is None else session.expires_at - version.read_at
    milliseconds = left // timedelta(milliseconds=1)
    if session is None or milliseconds <= 0:
        return fence, moment, 0, "", epoch
    said = {
        "agent": session.active_agent,
        "since": session.locked_at.isoformat(),
        "until": session.expires_at.isoformat(),
    }
    return fence, moment, milliseconds, json.dumps(said), epoch


def session_in(device_id: str, stored: bytes) -> Session:
    """The session that an entry holds. Raises ValueError if it is none."""
    try:
        said: Mapping[str, Any] = json.loads(stored)
        require_agent_name(said["agent"])
        return Session(device_id, said["agent"], _moment(said["since"]), _moment(said["until"]))
    except Exception as error:  # whatever it may hold
        raise ValueError("no session") from error


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
