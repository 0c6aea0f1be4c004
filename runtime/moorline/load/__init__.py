"""Load tests: many conversations at once, timed, and checked: is anything lost, mixed up or answered twice?"""

from moorline.load.conversations import Plan
from moorline.load.echo import echo_client, echo_moorline
from moorline.load.report import Report
from moorline.load.running import run_load
from moorline.load.targets import Answer, StoredTurn, Target, in_process

__all__ = ["Answer", "Plan", "Report", "StoredTurn", "Target", "echo_client", "echo_moorline", "in_process", "run_load"]
