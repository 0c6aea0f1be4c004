"""LangGraph's own conformance suite."""

from collections.abc import AsyncIterator

from langgraph.checkpoint.conformance import checkpointer_test, validate

from moorline_checkpoint.saver import DeviceCheckpointer

TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


async def test_all_eight_capabilities_are_detected_and_pass_all_81_tests(dsn: str) -> None:
    @checkpointer_test(name="DeviceCheckpointer")
    async def made() -> AsyncIterator[DeviceCheckpointer]:
        async with DeviceCheckpointer.from_conn_string(dsn) as saver:
            yield saver

    report = await validate(made)

    assert [name for name, result in report.results.items() if result.failures] == []
    assert {name: result.tests_passed for name, result in report.results.items() if result.detected} == TESTS
    assert sum(TESTS.values()) == 81
