"""The error that the caller of a turn gets when an agent fails."""

from __future__ import annotations

from moorline_migrations.errors import MoorlineError


class AgentError(MoorlineError):
    """An agent could not finish its turn. Its state is as before the turn; `effects_kept` says whether the effects of
    its tools stand."""

    retryable = True
