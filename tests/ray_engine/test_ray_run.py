"""A job on a cluster of Ray that the command starts for itself."""

import json
from pathlib import Path

from tests.ray_engine.runs import RayRun, TimedServer, files_with, holders_of, others, said
from tests.stub_server import wait_until
from tests.workbench import KEY

ROWS = 120


def test_a_job_on_ray_ends_as_any_other_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Each row has its answer, once; the key was in no file of Ray and in no environment but the command's own."""
    with TimedServer(latency_s=(0.1, 0.2)) as server:
        run = RayRun(tmp_path, server, ROWS, limits={"concurrency": 16, "requests_per_minute": 3_000})
        with run.started("--engine", "ray", "--workers", "2") as command:
            wait_until(lambda: server.requests >= ROWS / 4, "requests", limit_s=60)
            pids, folder = others(command), command.folder()
            assert len(others(command, "ray::_OwnerActor")) == 2
            assert holders_of(KEY, pids) == []
            assert files_with(KEY, folder) == []
            out, errors = command.process.communicate(timeout=60)
            assert (command.process.returncode, said(errors)) == (0, [])
            assert others(command) == []
        assert not folder.exists()
        assert files_with(KEY, tmp_path) == []
        summary = json.loads(out)
        assert (summary["succeeded"], summary["finished"], summary["resent"]) == (ROWS, True, 0)
        assert (server.requests, server.wasted) == (ROWS, 0)
        assert server.most_in_a_second() <= 50 + 10
        run.check_result()
        again = run.run()
        assert (again["had_work"], again["cost_usd"]) == (False, summary["cost_usd"])
