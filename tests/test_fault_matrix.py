"""Every fault, in every format, at the first attempt and at a later one: how its row ends; no other row minds."""

from collections.abc import Callable, Mapping

import httpx
import pytest

import cometbatch
from tests.workbench import FORMATS, Network, Workbench, carry_out

ROWS = 5
STRUCK = "0002"  # the row that meets the fault


def error(status: int, message: str = "no", code: object = "", **headers: str) -> httpx.Response:
    """An error in the gateway's own envelope."""
    envelope = {"error": {"message": message, "type": "comet_api_error", "code": code}}
    return httpx.Response(
        status, json=envelope, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def html(status: int) -> httpx.Response:
    """A page."""
    return httpx.Response(status, html="<html><title>Oops</title></html>")


PASSING = {
    "408": lambda: error(408),
    "409": lambda: error(409),
    "423": lambda: error(423),
    "424": lambda: error(424),
    "425": lambda: error(425),
    "499": lambda: error(499),
    "429": lambda: error(429),
    "429 with a wait": lambda: error(429, retry_after="7"),
    "429 of a provider's account": lambda: error(429, code="insufficient_quota"),
    "500": lambda: error(500),
    "500 numeric code": lambda: error(500, code=500),
    "502": lambda: error(502),
    "503": lambda: error(503, "overloaded"),
    "503 with a wait": lambda: error(503, retry_after="3"),
    "504 page": lambda: html(504),
    "524 page": lambda: html(524),
    "529": lambda: error(529),
    "cut JSON": lambda: httpx.Response(200, headers={"content-type": "application/json"}, content=b'{"id": "x", "cho'),
}
OF_A_PROVIDER = {
    "401 of its key": lambda: error(401, "Incorrect API key", "invalid_api_key"),
    "402 of its account": lambda: error(402),
    "403 of its quota": lambda: error(403, "Insufficient quota", "insufficient_quota"),
}
FINAL = {
    "400": (lambda: error(400, "temperature is not allowed"), "invalid_request"),
    "403": (lambda: error(403, "not for you"), "invalid_request"),
    "413": (lambda: error(413), "too_large"),
    "422": (lambda: error(422), "invalid_request"),
    "500 invalid_request": (lambda: error(500, "field messages is required", "invalid_request"), "invalid_request"),
    "500 convert_request_failed": (lambda: error(500, code="convert_request_failed"), "invalid_request"),
    "prompt blocked": (lambda: error(400, "request blocked", "prompt_blocked"), "blocked"),
    "sensitive words": (lambda: error(500, code="sensitive_words_detected"), "blocked"),
}
STOPPING = {
    "401": lambda: error(401, "Invalid token"),
    "402": lambda: error(402, code="insufficient_user_quota"),
    "407": lambda: error(407),
    "403 credit": lambda: error(403, "user quota is not enough", "insufficient_user_quota"),
    "403 key quota": lambda: error(403, code="pre_consume_token_quota_failed"),
    "flat credit": lambda: httpx.Response(403, json={"code": None, "message": "user quota is not enough"}),
}


class Struck:
    """Answers the struck row with a fault at one of its attempts (0: at every one)."""

    def __init__(self, fault: Callable[[], httpx.Response], at: int) -> None:
        self._fault, self._at = fault, at
        self.attempts = 0

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        if f"Parcel {STRUCK} ".encode() not in request.content:
            return None
        self.attempts += 1
        if self.attempts < self._at:
            return error(500)
        return self._fault() if self._at in (0, self.attempts) else None


def run(bench: Workbench, name: str, struck: Struck, **job: Mapping[str, object]) -> dict[str, object]:
    """The struck row of a run in which every other row succeeds."""
    bench.write_rows(ROWS)
    summary = carry_out(bench.job(target={"format": name}, **job), Network(answer=struck))
    rows = bench.result().to_pylist()
    assert summary.finished
    assert [row["status"] for row in rows if row["custom_id"] != STRUCK] == ["succeeded"] * (ROWS - 1)
    return next(row for row in rows if row["custom_id"] == STRUCK)


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("name", FORMATS)
def test_a_passing_fault_is_outlived(bench: Workbench, name: str, fault: str, attempt: int) -> None:
    """The row succeeds at its next attempt, whichever attempt was struck."""
    row = run(bench, name, Struck(PASSING[fault], attempt))
    assert (row["status"], row["attempts"], row["error_kind"]) == ("succeeded", attempt + 1, None)


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("fault", OF_A_PROVIDER)
@pytest.mark.parametrize("name", FORMATS)
def test_a_providers_own_account_is_no_ones_fault_while_others_are_answered(
    bench: Workbench, name: str, fault: str, attempt: int
) -> None:
    """It costs the row an attempt, and the run goes on: the same key was accepted just before."""
    row = run(bench, name, Struck(OF_A_PROVIDER[fault], attempt), limits={"concurrency": 1})
    assert (row["status"], row["attempts"], row["error_kind"]) == ("succeeded", attempt + 1, None)


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("fault", FINAL)
@pytest.mark.parametrize("name", FORMATS)
def test_a_final_fault_ends_its_row_at_once(bench: Workbench, name: str, fault: str, attempt: int) -> None:
    """It is not sent again, and its kind says why."""
    make, kind = FINAL[fault]
    row = run(bench, name, Struck(make, attempt))
    assert (row["status"], row["attempts"], row["error_kind"]) == ("failed", attempt, kind)


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("fault", STOPPING)
@pytest.mark.parametrize("name", FORMATS)
def test_a_fault_of_the_account_stops_the_run_and_loses_nothing(
    bench: Workbench, name: str, fault: str, attempt: int
) -> None:
    """The row is not recorded; once the account is in order the same call answers every row, none twice."""
    bench.write_rows(ROWS)
    job = bench.job(target={"format": name}, limits={"concurrency": 1})
    with pytest.raises(cometbatch.RunStoppedError) as stopped:
        carry_out(job, Network(answer=Struck(STOPPING[fault], attempt)))
    assert stopped.value.exit_code == 5
    assert stopped.value.summary.failed == 0
    network = Network()
    assert carry_out(job, network).succeeded == ROWS
    assert network.posts == ROWS - stopped.value.summary.succeeded
