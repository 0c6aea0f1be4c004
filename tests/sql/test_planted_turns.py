"""Tests of turns again, where a stranger has planted what would be preferred to what pg_catalog has.

One test for each operation on a turn; code that no test runs is judged in `test_planted`.
"""

from tests.turns.test_claims import (  # noqa: F401
    test_a_claim_asked_again_renews_its_lease,
    test_a_claim_that_nobody_learned_of_is_withdrawn_with_its_message,
    test_a_commit_asked_again_is_the_same_commit,
    test_a_failure_that_was_told_counts_and_the_last_one_sets_aside,
    test_a_heartbeat_keeps_others_out,
    test_a_message_that_was_set_aside_is_tried_again_after_those_that_wait,
    test_a_message_whose_waiter_died_is_left_behind_too,
    test_a_transaction_keeps_others_out_as_long_as_it_lasts,
    test_an_abandoned_turn_is_finished_by_the_next_claim,
)
from tests.turns.test_merge import (  # noqa: F401
    test_a_crashed_set_is_run_again_whole,
    test_consecutive_messages_are_one_turn_and_all_get_its_reply,
)
from tests.turns.test_queue import test_a_busy_device_rejects_a_caller_that_does_not_wait_and_stores_nothing  # noqa: F401
