"""Workers' logs are read while they grow, even if a worker was killed while it wrote a line."""

from pathlib import Path

from tests.faults.history import Log, Logs


def test_a_line_whose_worker_was_killed_while_writing_it_is_left_out(tmp_path: Path) -> None:
    Log(tmp_path / "wa1.jsonl", "wa1").write("invoke", device="d1", message="m1", text="hello")
    whole = (tmp_path / "wa1.jsonl").read_bytes()
    Log(tmp_path / "wa2.jsonl", "wa2").write("ready")
    for kept in range(len(whole)):
        (tmp_path / "wa1.jsonl").write_bytes(whole + whole[:kept])
        assert [(event.worker, event.event) for event in Logs(tmp_path).events()] == [
            ("wa1", "invoke"),
            ("wa2", "ready"),
        ]


def test_a_line_that_is_read_in_parts_is_there_once(tmp_path: Path) -> None:
    log, logs = tmp_path / "wa1.jsonl", Logs(tmp_path)
    Log(log, "wa1").write("ready")
    line = log.read_bytes()
    log.write_bytes(line + line[:20])
    assert len(logs.events()) == 1
    log.write_bytes(line + line)
    assert len(logs.events()) == 2
    assert len(logs.events()) == 2
