"""The manifest: what a run is, kept readable, and what may not change once it has begun."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError, DriftError
from cometbatch.input.files import Identity
from cometbatch.job import MessageTemplate, Target
from cometbatch.records import PriceBook, Rates
from cometbatch.run_state.drift import refuse_drift
from cometbatch.run_state.manifest import (
    MANIFEST_VERSION,
    Manifest,
    PricedTarget,
    Slice,
    decode_manifest,
    encode_manifest,
    partitions_of,
)

SHA256 = "ab" * 32
FINGERPRINT: dict[str, Any] = {"model": "vendor-model-4.5", "format": "chat", "params": {"temperature": 0.2}}


BOOK = PriceBook("vendor-model-4.5", "job", Rates(input=Decimal("0.50"), output=Decimal("1.5000000001")))
TARGET = Target("chat", "vendor-model-4.5", (MessageTemplate("user", "Say {{ text }}"),))


def manifest_of(fingerprint: dict[str, Any], **changes: Any) -> Manifest:
    """A manifest as a run writes it when it begins."""
    fields: dict[str, Any] = {
        "version": MANIFEST_VERSION,
        "cometbatch": "0.1.0",
        "run_id": "0123abcd",
        "created_at": "2026-09-01T12:00:00+00:00",
        "fingerprint": fingerprint,
        "input": Identity("table.csv", 1234567, SHA256, 10, ("id", "text")),
        "partition_rows": 8,
        "targets": (PricedTarget(TARGET, BOOK),),
        "columns": ("response",),
        "job": {"prompt": {"user": "Say {{ text }}\nin one word — 一言で"}},
        "warnings": ("no header",),
    }
    return Manifest(**fields | changes)


def reread(manifest: Manifest) -> Manifest:
    """The manifest as a later session finds it."""
    return decode_manifest(encode_manifest(manifest), "run/manifest.json")


def test_a_manifest_reads_back_as_it_was_written() -> None:
    """Nothing is lost on the way, prices least of all."""
    manifest = manifest_of(FINGERPRINT)
    assert reread(manifest) == manifest


def test_a_manifest_can_be_read_by_people() -> None:
    """It is indented JSON, with other alphabets as they are, and it ends with a line break."""
    lines = encode_manifest(manifest_of(FINGERPRINT)).decode().split("\n")
    assert len(lines) > 20
    assert lines[-1] == ""
    assert any("一言で" in line for line in lines)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"version"',
        b"\xff\xfe",
        b'{"version": "1"}',
        b'{"version": 3}',
        b'{"version": 3, "run_id": "\xff"}',
        b'{"version": 3, "x": ' + b"[" * 100_000,
        encode_manifest(manifest_of(FINGERPRINT))[:-40],
        encode_manifest(manifest_of(FINGERPRINT)).replace(b'"partition_rows"', b'"partition_raws"'),
        encode_manifest(manifest_of(FINGERPRINT)).replace(b'"0.50"', b'"half"'),
    ],
    ids=lambda content: content[:30].decode("latin-1"),
)
def test_a_damaged_manifest_is_refused_with_the_way_out(content: bytes) -> None:
    """Damage is a `CheckpointError` that names the file and says how to go on."""
    with pytest.raises(CheckpointError, match=r"^run/manifest\.json: .*damaged.*--fresh"):
        decode_manifest(content, "run/manifest.json")


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    """Whatever a disk gives back is a manifest or a `CheckpointError`."""
    with pytest.raises(CheckpointError):
        decode_manifest(content, "here")


def test_another_version_is_named() -> None:
    """A manifest of a later program says so, even if nothing else in it is known."""
    with pytest.raises(CheckpointError, match=r"version 9, this one knows 3\).*--fresh"):
        decode_manifest(b'{"version": 9, "shape": "unheard of"}', "run/manifest.json")


def test_a_column_that_this_program_does_not_have_is_named() -> None:
    """Another version may have it; a flipped bit in the file looks the same."""
    with pytest.raises(CheckpointError, match=r"no output column 'statuz'.*--fresh"):
        reread(manifest_of(FINGERPRINT, columns=("custom_id", "statuz")))


def test_an_unchanged_job_carries_on() -> None:
    """The same fingerprint and the same input are no drift."""
    refuse_drift(reread(manifest_of(FINGERPRINT)), FINGERPRINT, 1234567, SHA256)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.decimals(-9, 9) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(fingerprint=st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_fingerprint_equals_itself_after_a_trip_through_the_file(fingerprint: dict[str, Any]) -> None:
    """Tuples, decimals and nested settings come back from JSON as other types, which is no drift."""
    refuse_drift(reread(manifest_of(fingerprint)), fingerprint, 1234567, SHA256)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", "other", 'model: was "vendor-model-4.5", is "other"'),
        ("format", "gemini", 'format: was "chat", is "gemini"'),
        ("params", {"temperature": 0.3}, 'params: was {"temperature":0.2}, is {"temperature":0.3}'),
        ("model", None, 'model: was "vendor-model-4.5", is unset'),
        ("stop", ("END",), 'stop: was unset, is ["END"]'),
    ],
)
def test_drift_names_the_field_its_values_and_the_way_out(field: str, value: object, words: str) -> None:
    """Whoever changed the job reads what they changed, and each way to go on."""
    with pytest.raises(DriftError) as refused:
        refuse_drift(manifest_of(FINGERPRINT), FINGERPRINT | {field: value}, 1234567, SHA256)
    message = str(refused.value)
    assert f"\n  {words}\n" in message
    assert all(way in message for way in ("Undo the change", "output.path", "--fresh", "2026-09-01"))


@pytest.mark.parametrize(("size", "sha256"), [(7654321, SHA256), (1234567, "cd" * 32)])
def test_a_changed_input_is_drift(size: int, sha256: str) -> None:
    """The table is part of what a run is: by size, and by content where the size is the same."""
    with pytest.raises(DriftError, match=r"input: was 1,234,567 bytes, sha256 abababababab, is "):
        refuse_drift(manifest_of(FINGERPRINT), FINGERPRINT, size, sha256)


def test_every_changed_field_is_named() -> None:
    """All changes are told at once, not one a try; what did not change is not."""
    changed = {"model": "other", "format": "chat", "params": {}}
    with pytest.raises(DriftError) as refused:
        refuse_drift(manifest_of(FINGERPRINT), changed, 1, SHA256)
    told = [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:-1]]
    assert told == ["model", "params", "input"]


def test_a_long_value_is_shown_in_short() -> None:
    """A prompt of many pages does not drown the message."""
    with pytest.raises(DriftError) as refused:
        refuse_drift(manifest_of({"prompt": "a" * 9999}), {"prompt": "b" * 9999}, 1234567, SHA256)
    assert max(map(len, str(refused.value).splitlines())) < 300
    assert "…" in str(refused.value)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("a" * 500 + " cat " + "b" * 500, "a" * 500 + " dog " + "b" * 500, (" cat b", " dog b")),
        ("a" * 500, "a" * 500 + " dog", ('aaa"', 'aaa dog"')),
        ("a" * 500 + " cat", "", ('was "aaa', 'is ""')),
    ],
)
def test_two_long_values_are_shown_where_they_differ(was: str, now: str, told: tuple[str, str]) -> None:
    """A changed word far into a prompt can be seen in the message."""
    with pytest.raises(DriftError) as refused:
        refuse_drift(manifest_of({"prompt": was}), {"prompt": now}, 1234567, SHA256)
    assert told[0] in str(refused.value)
    assert told[1] in str(refused.value)


def test_the_manifest_is_plain_json() -> None:
    """Other programs can read it too."""
    plain = msgspec.json.decode(encode_manifest(manifest_of(FINGERPRINT)))
    assert plain["run_id"] == "0123abcd"
    assert plain["targets"][0]["prices"]["rates"]["input"] == "0.50"


@given(rows=st.integers(0, 40), size=st.integers(1, 12), slices=st.integers(1, 3))
def test_each_call_is_in_one_partition_of_one_slice(rows: int, size: int, slices: int) -> None:
    """An ordinal is slice x rows + row; partitions cover them all, once, in order, and never two slices at a time."""
    identity = Identity("table.csv", 1, SHA256, rows, ("id",))
    manifest = manifest_of({}, input=identity, partition_rows=size, slices=(Slice(),) * slices)
    ordinals: list[int] = []
    for number, partition in enumerate(manifest.partitions()):
        first = manifest.first_ordinal(partition)
        calls = range(first, first + partition.row_count)
        assert (partition.index, len(calls)) == (number, min(size, rows - partition.first_row))
        assert {manifest.partition_of(ordinal) for ordinal in calls} == {number}
        assert {ordinal // rows for ordinal in calls} == {partition.slice}
        ordinals += calls
    assert ordinals == list(range(manifest.calls))


def test_a_plain_run_says_nothing_of_a_matrix() -> None:
    """What it writes about slices is what it wrote before there was a matrix."""
    plain = msgspec.json.decode(encode_manifest(manifest_of(FINGERPRINT)))
    assert plain["slices"] == [{"label": "", "target": 0, "sample": 0}]
    assert "named" not in plain
    assert manifest_of(FINGERPRINT).queues() == ((0,),)


def test_slices_of_one_model_are_one_queue() -> None:
    """Whatever the format or the prompt: the model is what has a pace. Slices that the job no longer names are none."""
    asked = Target("chat", "a", TARGET.messages), Target("chat", "b", ()), Target("messages", "a", TARGET.messages)
    targets = tuple(PricedTarget(each, BOOK) for each in asked)
    slices = tuple(Slice(target=number, sample=sample) for number in range(3) for sample in range(2))
    manifest = manifest_of(FINGERPRINT, targets=targets, slices=slices, needs=("matrix",))
    assert manifest.queues() == ((0, 1, 4, 5), (2, 3))
    some = reread(manifest_of(FINGERPRINT, targets=targets, slices=slices, needs=("matrix",), named=(5, 2, 0)))
    assert (some.active, some.queues(), some.calls) == ((5, 2, 0), ((5, 0), (2,)), 30)


@given(rows=st.integers(1, 40), size=st.integers(1, 12), slices=st.integers(1, 3))
def test_a_range_is_the_same_rows_in_all_slices(rows: int, size: int, slices: int) -> None:
    """The range of a call is that of its row, whichever slice it is in."""
    identity = Identity("table.csv", 1, SHA256, rows, ("id",))
    manifest = manifest_of({}, input=identity, partition_rows=size, slices=(Slice(),) * slices)
    for ordinal in range(manifest.calls):
        number = manifest.range_of(manifest.partition_of(ordinal))
        assert number == ordinal % rows // size
        assert manifest.partition_of(ordinal) in partitions_of(manifest, number)
