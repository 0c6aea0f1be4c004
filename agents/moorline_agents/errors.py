"""What can go wrong with an agent, as the caller of a turn sees it."""

from __future__ import annotations

from moorline_migrations.errors import MoorlineError


class AgentError(MoorlineError):
    """An agent could not finish its turn. Its state is as before the turn; what its tools did to the world may stand,
    and `effects_kept` says whether it does."""

    retryable = True
