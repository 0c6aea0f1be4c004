"""What Moorline itself says to a person. Everything else that they read is an agent's."""

from dataclasses import dataclass, fields

from moorline_agents.questions import folded


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The sentences that Moorline itself says to a person, so that they can be in the person's language:
    `Moorline(texts=Texts(start_over="Gut, fangen wir von vorn an."))`.

    The words with which a person starts over are a setting, `MOORLINE_START_OVER`. Raises `ValueError` for a text that
    says nothing.
    """

    start_over: str = "All right, let's start over. What can I do for you?"
    """The reply to a person who starts over and says nothing else."""
    stopped: str = "Stopped."
    """The reply of a turn that was stopped before any text of it was told."""
    joined: str = "Another device has joined this conversation."
    """What a device is told with its next reply after another one has joined its conversation (`Reply.notice`)."""

    yes: str = "yes"
    """The option that agrees when a call is to be confirmed (`@tool(confirm=…)`)."""
    no: str = "no"
    """The other one."""
    choose: str = "{question} ({options})"
    """How a question with options is asked in words; `" / "` stands between the options."""
    closed: str = "That question could no longer be answered, so it was closed."
    """What a person is told who answers a question that an agent or tool asked which is gone since: the reply to a
    `Resume`, and beside the reply to what they wrote (`Reply.notice`)."""

    def __post_init__(self) -> None:
        blank = [field.name for field in fields(self) if not getattr(self, field.name).strip()]
        if blank:
            raise ValueError(f"Texts: {', '.join(blank)} must say something.")
        if folded(self.yes) == folded(self.no):
            raise ValueError("Texts: yes and no must be different words.")
        if "?" not in self._chosen():
            raise ValueError("Texts: choose must show the {question}.")

    def _chosen(self) -> str:
        try:
            return self.choose.format(question="?", options="")
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError("Texts: choose may name {question} and {options} only.") from error
