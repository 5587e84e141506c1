"""How the simulator behaves, and all of its chance, which comes from digests.

Law: the same seed, request and attempt give the same reply, in any order and in any process. Only the rate limit, the
balance and, with an `accuracy`, whether one of several equal requests is answered rightly depend on other requests,
because that is their meaning.
"""

import difflib
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from cometbatch.simulator.catalog import CATALOG_SHAPES

MAX_LATENCY_S = 3600.0  # seconds: the largest latency that may be asked for
DEFAULT_LATENCY_S = (0.5, 1.5)  # seconds: the shortest and the longest time to an answer
LONG_TAIL_S = (100.0, 200.0)  # seconds to an answer of the long tail (contract sheet, section 10 item 12)
_MANTISSA_BITS = 53  # of a float: a larger numerator could round up to 1.0
_UNIT_BYTES = 8  # of a digest for a number from 0 to 1
_NUMBER_BYTES = 16  # of a digest for a whole number: far above any bound in use, so that all remainders are as likely
_NO_STREAM = b',"stream":false}'  # how a body of our own client ends
_LATENCY = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", re.ASCII)
_SHARE = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)


class FaultKind(Struct, frozen=True):
    """One thing that can go wrong.

    `strikes` is what it depends on: "attempt" (a later attempt is decided anew and may get through), "request" (every
    attempt of the request ends the same way) or "job" (as "request", but the service refuses all requests of the job).
    """

    name: str
    strikes: Literal["attempt", "request", "job"]
    what: str


FAULT_KINDS = (
    FaultKind("bad-key", "job", "401: the key is refused"),
    FaultKind("credit", "job", "403 insufficient_user_quota: the balance is spent"),
    FaultKind("key-quota", "job", "403 pre_consume_token_quota_failed: the key's own quota is spent"),
    FaultKind("model-not-found", "job", "503 model_not_found: no route to the model"),
    FaultKind("not-priced", "job", "400: the model has not been priced by the administrator"),
    FaultKind("proxy-password", "job", "407: a proxy wants a user name and a password"),
    FaultKind("provider-key", "attempt", "401: the key of one provider behind the service is refused"),
    FaultKind("provider-credit", "attempt", "402: the account of one provider behind the service is empty"),
    FaultKind("409", "attempt", "a conflict: not now"),
    FaultKind("423", "attempt", "locked: not now"),
    FaultKind("424", "attempt", "a step before it failed: not now"),
    FaultKind("425", "attempt", "too early: not now"),
    FaultKind("499", "attempt", "the gateway's own connection was given up"),
    FaultKind("days-429", "request", "429 with a Retry-After of a week"),
    FaultKind("no-max-tokens", "job", "400: the model does not take max_tokens, but max_completion_tokens (chat)"),
    FaultKind("no-max-completion-tokens", "job", "400: the model knows the token cap as max_tokens alone (chat)"),
    FaultKind("429", "attempt", "too many requests"),
    FaultKind("500", "attempt", "the service failed, with an empty error code"),
    FaultKind("502", "attempt", "bad gateway"),
    FaultKind("503", "attempt", "overloaded"),
    FaultKind("504", "attempt", "gateway timeout, with an HTML body"),
    FaultKind("524", "attempt", "the proxy waited too long, with an HTML body"),
    FaultKind("529", "attempt", "the upstream provider is overloaded"),
    FaultKind("reset", "attempt", "the connection is cut, before the reply or (billed) in the middle of it"),
    FaultKind("slow-body", "attempt", "a whole reply (billed) whose body drips for half a minute"),
    FaultKind("long-tail", "attempt", "a whole reply (billed), but only after 100 to 200 seconds"),
    FaultKind("cut-json", "attempt", "200 (billed) whose JSON is cut off"),
    FaultKind("cut-stream", "attempt", "200 (billed) with the beginning of a stream that nobody asked for"),
    FaultKind("failed-200", "attempt", "200 (billed) that holds the failure of a provider"),
    FaultKind("400", "request", "the model refuses the request"),
    FaultKind("403-html", "request", "a firewall's HTML page"),
    FaultKind("500-invalid-request", "request", "500 that is really a mistake in the request (code invalid_request)"),
    FaultKind("prompt-blocked", "request", "400 prompt_blocked: the provider refuses the prompt"),
    FaultKind("sensitive-words", "request", "500 sensitive_words_detected: the gateway refuses the prompt"),
    FaultKind("html-200", "request", "200 with an HTML page, as from a wrong address"),
    FaultKind("redirect", "request", "301 to an HTML page, as from a wrong path"),
    FaultKind("length", "request", "an answer cut short at the token limit"),
    FaultKind("length-empty", "request", "no answer: reasoning ate the token limit"),
    FaultKind("empty", "request", "a finished answer without text"),
    FaultKind("content-filter", "request", "no answer: filtered"),
    FaultKind("refusal", "request", "the model declines to answer"),
    FaultKind("tool-calls", "request", "a tool call in place of an answer"),
    FaultKind("ignores_schema", "request", "a whole answer (billed) in prose, where JSON of a schema was asked for"),
    FaultKind("fenced", "request", "a whole answer (billed) whose JSON stands in a code fence"),
    FaultKind("cut_json", "request", "an answer (billed) whose own JSON is cut, though the reply calls it whole"),
    FaultKind("extra_key", "request", "a whole answer (billed) with a property that the schema does not have"),
    FaultKind("wrong_type", "request", "a whole answer (billed) with a value of another type than the schema's"),
    FaultKind("int_overflow", "request", "a whole answer (billed) with an integer that 64 bits do not hold"),
    FaultKind("deep_keywords", "request", "400: additionalProperties below the fifth level of a schema is refused"),
    FaultKind("no-usage", "request", "a whole answer (billed) without token counts"),
    FaultKind("streamed", "request", "a whole answer (billed) as a stream, which nobody asked for"),
    FaultKind("wrapped", "request", "a whole answer (billed) with comments, data: or an end mark around its JSON"),
    FaultKind("miscoded", "request", "a whole answer (billed) under a foreign or a false content coding"),
    FaultKind("dialect", "request", "a whole answer (billed) with finish words and parts of another format"),
    FaultKind("unreadable", "request", "200 (billed) that comes whole and is no JSON"),
    FaultKind("cap-ignored", "request", "a whole answer (billed) of many more tokens than the cap allows"),
    FaultKind("zero-usage", "request", "a whole answer (billed) whose token counts are all 0"),
    FaultKind("wrong-total", "request", "a whole answer (billed) whose token counts contradict each other"),
    FaultKind("empty-candidates", "request", "gemini: a 200 without candidates; elsewhere: 500 empty_response"),
)
_STRIKES_IN_WORDS = {
    "attempt": "one attempt; the next may get through",
    "request": "every attempt of the same request",
    "job": "every attempt; the service refuses the job",
}
FAULTS: Mapping[str, str] = MappingProxyType(
    {k.name: f"{k.what} [{_STRIKES_IN_WORDS[k.strikes]}]" for k in FAULT_KINDS}
)
_STRIKES = {kind.name: kind.strikes for kind in FAULT_KINDS}
_ORDER = {
    "job": 0,
    "attempt": 1,
    "request": 2,
}  # a gateway first checks the caller, then fails by itself, then looks at the request


class Fault(Struct, frozen=True):
    """A fault, and its share of requests (or of attempts, see `FAULT_KINDS`) from 0 to 1.

    Raises `ValueError` for a name that is not in `FAULTS`, or a share outside of 0 to 1.
    """

    name: str
    share: float

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(_unknown_fault(self.name))
        if not 0 <= self.share <= 1:
            raise ValueError(f"fault {self.name}: the share must be from 0 to 1, not {self.share}")


class Accuracy(Struct, frozen=True):
    """How often models are right: `shares` by model, from 0 to 1. Raises `ValueError` for other numbers.

    `spread`: the share of the questions that are decided once for all samples of a model, which is also the correlation
    of two samples of a question; the others are decided anew for each sample. `seed`: that of the simulator.
    """

    shares: Mapping[str, float] = MappingProxyType({})
    spread: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for model, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"accuracy {model}: the share must be from 0 to 1, not {share}")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread must be from 0 to 1, not {self.spread}")


class Behaviour(Struct, frozen=True):
    """The settings of a simulator. Raises `ValueError` if a value makes no sense.

    `latency_s`: shortest and longest time to an answer, in seconds; the fault "long-tail" adds longer ones. `rps`:
    requests per second that are admitted, others get 429; None is no limit. `retry_after`: a 429 names a wait (by
    default it does not: contract sheet, section 7.3). `credit_usd`: the balance in US dollars; when it is spent,
    requests get 403 insufficient_user_quota. `quirks`: replies vary as in section 10 item 9 of the sheet. `catalog`:
    the shape of `GET /api/models`, a name in `catalog.CATALOG_SHAPES`. `model`: the id of one more model, which is
    served and priced as comet-sim-1 is. `accuracy`: the share of right answers by model, `spread` as of `Accuracy`;
    other models answer with no regard to what is right.
    """

    seed: int = 0
    latency_s: tuple[float, float] = DEFAULT_LATENCY_S
    rps: float | None = None
    faults: tuple[Fault, ...] = ()
    retry_after: bool = False
    credit_usd: Decimal | None = None
    quirks: bool = True
    catalog: str = "full"
    model: str | None = None
    accuracy: tuple[tuple[str, float], ...] = ()
    spread: float = 0.0

    def __post_init__(self) -> None:
        Accuracy(dict(self.accuracy), self.spread)
        shortest, longest = self.latency_s
        if not 0 <= shortest <= longest <= MAX_LATENCY_S:
            raise ValueError(f"latency must be two times in order, from 0 to {MAX_LATENCY_S:.0f} seconds")
        if self.rps is not None and not (self.rps > 0 and math.isfinite(self.rps)):
            raise ValueError(f"requests per second must be above 0, not {self.rps}")
        if self.credit_usd is not None and not (self.credit_usd.is_finite() and self.credit_usd >= 0):
            raise ValueError(f"credit must be 0 or more US dollars, not {self.credit_usd}")
        if self.catalog not in CATALOG_SHAPES:
            raise ValueError(f"unknown catalog shape {self.catalog!r}; known: {', '.join(CATALOG_SHAPES)}")

    def to_options(self) -> list[str]:
        """The settings as options of `cometbatch simulate`; rarely used ones only if they differ from the default."""
        options = [f"--seed={self.seed}", f"--latency={'-'.join(_plain(bound) for bound in self.latency_s)}"]
        options += [f"--fault={fault.name}:{_plain(fault.share)}" for fault in self.faults]
        options += [f"--rps={_plain(self.rps)}"] if self.rps is not None else []
        options += ["--retry-after"] if self.retry_after else []
        options += [f"--credit={self.credit_usd:f}"] if self.credit_usd is not None else []
        options += [] if self.quirks else ["--no-quirks"]
        options += [] if self.catalog == "full" else [f"--catalog={self.catalog}"]
        options += [] if self.model is None else [f"--model={self.model}"]
        options += [f"--accuracy={model}:{_plain(share)}" for model, share in self.accuracy]
        options += [] if not self.spread else [f"--spread={_plain(self.spread)}"]
        return options


def parse_fault(text: str) -> Fault:
    """NAME:SHARE, such as "429:0.05". Raises `ValueError` that lists the names and suggests the nearest."""
    name, _, share = text.strip().partition(":")
    if name not in FAULTS:
        raise ValueError(_unknown_fault(name))
    if not _SHARE.fullmatch(share):
        raise ValueError(f"fault {name}: write it with its share of requests, such as {name}:0.05")
    return Fault(name, float(share))


def parse_accuracy(text: str) -> tuple[str, float]:
    """MODEL:SHARE, such as "comet-sim-1:0.8". Raises `ValueError` with what is expected."""
    model, _, share = text.strip().rpartition(":")
    if not model or not _SHARE.fullmatch(share):
        raise ValueError(f"accuracy {text!r}: write a model with its share of right answers, such as comet-sim-1:0.8")
    return model, float(share)


def parse_latency(text: str) -> tuple[float, float]:
    """MIN-MAX or one number, in seconds, such as "0.5-1.5" or "2". Raises `ValueError` with what is expected."""
    match = _LATENCY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"latency {text!r}: write seconds as MIN-MAX, such as 0.5-1.5, or as one number")
    shortest = float(match[1])
    longest = float(match[2]) if match[2] else shortest
    return Behaviour(latency_s=(shortest, longest)).latency_s


def request_digest(seed: int, path: str, body: bytes) -> bytes:
    """The digest of a request, 16 bytes: all decisions about the request come from it.

    A request that says at its end that it wants no stream is the same as one that leaves that out.
    """
    if body.endswith(_NO_STREAM):
        body = body.removesuffix(_NO_STREAM) + b"}"
    return hashlib.blake2b(f"{seed}\n{path}\n".encode() + body, digest_size=16).digest()


def number(digest: bytes, label: str, below: int) -> int:
    """A whole number from 0 to `below` (not included), as good as random, the same for the same digest and label."""
    return int.from_bytes(_draw(digest, label, _NUMBER_BYTES)) % below


def unit(digest: bytes, label: str) -> float:
    """A number from 0 to 1 (not included), as good as random, the same for the same digest and label."""
    return (int.from_bytes(_draw(digest, label, _UNIT_BYTES)) >> (8 * _UNIT_BYTES - _MANTISSA_BITS)) / (
        1 << _MANTISSA_BITS
    )


def strike(faults: Iterable[Fault], digest: bytes, attempt: int) -> str | None:
    """The fault of this attempt, or None. Each fault is decided by itself, so that adding one changes no other."""
    struck = (fault.name for fault in faults if unit(digest, _roll(fault.name, attempt)) < fault.share)
    return min(struck, key=lambda name: _ORDER[_STRIKES[name]], default=None)


def latency_s(behaviour: Behaviour, digest: bytes, attempt: int) -> float:
    """Seconds until the answer to this attempt."""
    return _between(behaviour.latency_s, unit(digest, f"latency {attempt}"))


def long_tail_s(digest: bytes, attempt: int) -> float:
    """Seconds until an answer that has the fault "long-tail"."""
    return _between(LONG_TAIL_S, unit(digest, f"long-tail {attempt}"))


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share


def _roll(name: str, attempt: int) -> str:
    return f"fault {name} {attempt}" if _STRIKES[name] == "attempt" else f"fault {name}"


def _draw(digest: bytes, label: str, size: int) -> bytes:
    return hashlib.blake2b(label.encode(), digest_size=size, key=digest).digest()


def _unknown_fault(name: str) -> str:
    nearest = difflib.get_close_matches(name, FAULTS, n=1, cutoff=0.5)
    suggestion = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"unknown fault {name!r}.{suggestion} Known: {', '.join(FAULTS)}"


def _plain(value: float) -> str:
    return f"{Decimal(repr(value)):f}"  # exact, and never as 1e-05, whose dash reads as a range
