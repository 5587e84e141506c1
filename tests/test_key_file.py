"""`target.key_file`: the key from a mounted secret or a credential of systemd. It goes nowhere but into requests."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import JobError, UsageError
from cometbatch.job.variables import filled, has_stray_dollar, variables_in, without_variables
from cometbatch.transport.key import MAX_KEY_FILE_BYTES, KeySource, NoKeyError
from tests.stub_server import MODEL, StubServer, Trouble
from tests.test_secrets import NO_SHAPE, readings, refuse_pieces
from tests.workbench import KEY, KEY_ENV, Network, Workbench, carry_out, files

NOWHERE = {"base_url": "http://127.0.0.1:9"}
PRINTABLE = "".join(chr(code) for code in range(33, 127) if chr(code) not in "\"'`=")


def read(content: bytes, folder: Path) -> str:
    """The key of a file with this content."""
    (folder / "key").write_bytes(content)
    return KeySource("UNUSED", folder / "key").read()


@given(key=st.text(PRINTABLE, min_size=1, max_size=80), around=st.lists(st.sampled_from(" \t\n\r\x0c"), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_whatever_an_editor_puts_around_a_key_is_no_part_of_it(tmp_path: Path, key: str, around: list[str]) -> None:
    """Law: line breaks of any system, blanks and byte order marks make no difference, in UTF-8 and UTF-16."""
    text = "".join(around) + key + "".join(reversed(around))
    marked = f"\ufeff{text}"
    forms = [text.encode(), *(marked.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be"))]
    assert {read(form, tmp_path) for form in forms} == {key}


WRONG = [
    (b"", "is empty. Write the key itself into it"),
    (b" \r\n\n", "is empty. Write the key itself into it"),
    (b"\xef\xbb\xbf", "is empty. Write the key itself into it"),
    (b"Zk4rWq8t\nYb2nVs6h\n", "has 2 lines, and a key is one"),
    (b"# mine\rZk4rWq8t\r", "has 2 lines, and a key is one"),
    (b"COMETAPI_KEY=Zk4rWq8t", "holds NAME=VALUE, as for an environment. It should hold the key alone"),
    (b"export COMETAPI_KEY=Zk4rWq8t\n", "holds NAME=VALUE, as for an environment"),
    (b'"Zk4rWq8t"', "holds characters that no key has"),
    (b"Bearer Zk4rWq8t", "holds characters that no key has"),
    (b"Zk4rWq8t\x00", "holds characters that no key has"),
    (b"Zk4rWq8t\xff\xfe", "holds characters that no key has"),
    ("Zk4rWq8té".encode(), "holds characters that no key has"),
    (b"Z" * (MAX_KEY_FILE_BYTES + 1), "has more than 16 KiB, which is hardly a key"),
]


@pytest.mark.parametrize(("content", "words"), WRONG, ids=[words[:24] + str(at) for at, (_, words) in enumerate(WRONG)])
def test_a_file_that_holds_no_key_is_refused_before_anything_is_sent(
    bench: Workbench, content: bytes, words: str
) -> None:
    """`plan` and `run` name the file and what is wrong, in the same words, and quote nothing of it."""
    path = bench.folder / "key"
    path.write_bytes(content)
    job, before = bench.job(target={**NOWHERE, "key_file": str(path)}, prices="none"), files(bench.folder)
    for command in (cometbatch.plan, cometbatch.run):
        with pytest.raises(UsageError, match=words) as refused:
            command(job)
        assert str(path) in str(refused.value)
        assert "target.key_file" in str(refused.value)
        refuse_pieces([("error", repr(refused.value))], "Zk4rWq8tYb2nVs6h")
    assert files(bench.folder) == before


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes, a device, a loop of links."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, words in (
        (tmp_path, "is a folder: give the path of the file in it"),
        (tmp_path / "pipe", "is no plain file"),
        (Path("/dev/null"), "is no plain file"),
        (tmp_path / "loop", "symbolic links"),
    ):
        with pytest.raises(UsageError, match=words):
            KeySource("UNUSED", path).read()


def test_plan_tells_a_file_that_is_not_there_as_a_variable_that_is_not_set(bench: Workbench) -> None:
    """A warning; `run` refuses it with what to do. So it is with a variable in the path, and with systemd's."""
    for said, words, way in (
        ("key", f"the file {Path.cwd() / 'key'} is not there", "write the key into it, or mount it there"),
        ("${NO_SUCH}/key", "the environment variable NO_SUCH is not set", "It says where the API key is: set it"),
        (
            "${CREDENTIALS_DIRECTORY}/cometapi",
            "the environment variable CREDENTIALS_DIRECTORY is not set",
            "systemd sets it for a service that has LoadCredential=cometapi:FILE",
        ),
    ):
        job = bench.job(target={**NOWHERE, "key_file": said}, prices="none")
        assert any(warning.startswith(words) for warning in cometbatch.plan(job).warnings)
        with pytest.raises(NoKeyError) as refused:
            cometbatch.run(job)
        assert words[1:] in str(refused.value)
        assert way in str(refused.value)


def test_a_key_in_a_file_reaches_each_request_and_nothing_else(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By systemd's variable, over a key in the environment; a service that quotes it leaves no trace of it."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(bench.folder / "credentials"))
    monkeypatch.setenv(KEY_ENV, KEY)
    (bench.folder / "credentials").mkdir()
    path = bench.folder / "credentials" / "cometapi"
    path.write_text(f"{NO_SHAPE}\n", encoding="utf-8")
    with StubServer(Trouble(pushback=0.1), echo=NO_SHAPE) as server:
        target = {"base_url": server.base_url, "model": MODEL, "key_file": "${CREDENTIALS_DIRECTORY}/cometapi"}
        job = bench.job(target=target, output={"partition_rows": 5}, retry={"max_wait_s": 0.01})
        plan, summary = cometbatch.plan(job), cometbatch.run(job, progress=False)
    assert "[key]" in str(bench.result()["response"].to_pylist())
    status = cometbatch.status(bench.output)
    shown = [repr(each) + each.describe() + json.dumps(each.to_dict()) for each in (plan, summary, status)]
    shown += [repr(job), json.dumps(job.describe()), capsys.readouterr().err, capsys.readouterr().out]
    path.unlink()
    refuse_pieces([*(("shown", each) for each in shown), *readings(bench.folder)], NO_SHAPE)
    manifest = (bench.run_directory / "manifest.json").read_text(encoding="utf-8")
    assert "${CREDENTIALS_DIRECTORY}/cometapi" in manifest


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"prompt": {"system": f"Use {NO_SHAPE}."}}, id="in a message"),
        pytest.param({"params": {"stop": [NO_SHAPE]}}, id="as a stop text"),
        pytest.param({"target": {"model": NO_SHAPE}}, id="for the model"),
        pytest.param({"output": {"prefix": NO_SHAPE}}, id="for the prefix"),
    ],
)
def test_a_job_that_holds_the_file_s_key_is_refused(bench: Workbench, sections: dict[str, Any]) -> None:
    """It would go into files and messages; the message names the file and quotes nothing."""
    path = bench.folder / "key"
    path.write_text(f"\ufeff{NO_SHAPE}\r\n", encoding="utf-8")
    target = {**NOWHERE, "key_file": str(path), **sections.pop("target", {})}
    job = bench.job(target=target, **sections)
    for command in (cometbatch.plan, cometbatch.run):
        with pytest.raises(UsageError, match=f"this holds the API key in the file {path}") as refused:
            command(job)
        refuse_pieces([("error", repr(refused.value))], NO_SHAPE)


def test_the_variable_s_key_is_looked_for_also_where_a_file_has_the_key(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a key all the same."""
    monkeypatch.setenv(KEY_ENV, NO_SHAPE)
    (bench.folder / "key").write_text(KEY, encoding="utf-8")
    job = bench.job(target={**NOWHERE, "key_file": str(bench.folder / "key")}, prompt={"system": NO_SHAPE})
    with pytest.raises(UsageError, match=f"this holds the API key that {KEY_ENV} is set to"):
        cometbatch.plan(job)


def test_each_session_reads_the_file_as_it_is_then(tmp_path: Path) -> None:
    """A mount of Kubernetes is a link to a link: a rotation puts another folder behind it, and the old one goes."""
    for name, key in (("..1", "first-key"), ("..2", "second-key")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(key, encoding="utf-8")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    source = KeySource("UNUSED", tmp_path / "key")
    assert source.read() == "first-key"
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    (tmp_path / "..1" / "key").unlink()
    assert source.read() == "second-key"
    assert repr(source) == f"KeySource(variable='UNUSED', file={tmp_path / 'key'!r})"


def test_a_run_without_work_and_a_simulated_one_read_no_key(bench: Workbench) -> None:
    """What is finished can be looked at without the secret."""
    job = bench.job(target={"key_file": "/nowhere/key"})
    carry_out(job, Network())
    assert not any("key" in warning for warning in cometbatch.plan(job).warnings)
    assert (cometbatch.run(job, progress=False).had_work, cometbatch.verify(job).ok) == (False, True)


def test_the_path_starts_at_the_job_file_unless_a_variable_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other paths of a job; the description has the name of a variable and never its value."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("TENANT", "a")
    bench = Workbench(tmp_path)

    def placed(text: str) -> str:
        job = cometbatch.load_job(bench.settings(target={"key_file": text}), base_dir=tmp_path / "jobs")
        assert cometbatch.Job.from_description(job.describe()) == cometbatch.Job.from_description(job.describe())
        assert json.loads(json.dumps(job.describe()))["target"]["key_file"] == str(job.target.key_file)
        return str(job.target.key_file)

    assert placed("../key") == str(tmp_path / "key")
    assert placed("~/key") == "/home/me/key"
    assert placed("/run/secrets/key") == "/run/secrets/key"
    assert placed("${CREDENTIALS_DIRECTORY}/cometapi") == "${CREDENTIALS_DIRECTORY}/cometapi"
    assert placed("keys/${TENANT}/../key") == str(tmp_path / "jobs/keys/${TENANT}/../key")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"key_file": "key", "key_env": "MY_KEY"}, "contradicts target.key_env"),
        ({"key_file": "$CREDENTIALS_DIRECTORY/key"}, r"write \$\{NAME\} for an environment variable"),
        ({"key_file": "$(pwd)/key"}, r"write \$\{NAME\}"),
        ({"key_file": "%d/cometapi"}, r"write \$\{CREDENTIALS_DIRECTORY\} in the place of systemd's %d"),
        ({"key_file": "{{ ds }}/key"}, "nothing here replaces it"),
        ({"key_file": NO_SHAPE}, "this looks like a key itself.* write ./ before it"),
        ({"key_file": "sk-0123456789abcdef"}, "this looks like a key"),
        ({"key_file": "https://vault.example/key"}, "only files on this machine"),
        ({"key_file": ""}, "found nothing in it"),
        ({"key_file": 5}, "put it in quotes"),
    ],
)
def test_a_path_that_can_not_be_meant_is_refused(bench: Workbench, target: dict[str, object], words: str) -> None:
    """With its place, and a key that was put there by mistake is not quoted."""
    with pytest.raises(JobError, match=rf"target\.key_file: .*{words}") as refused:
        bench.job(target=target)
    refuse_pieces([("error", repr(refused.value))], NO_SHAPE)


def test_a_variable_that_holds_the_key_itself_is_not_shown(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`key_file: ${COMETAPI_KEY}` is a mistake for key_env: it is no path, and no message has its value."""
    monkeypatch.setenv("MY_KEY", NO_SHAPE)
    job = bench.job(target={**NOWHERE, "key_file": "${MY_KEY}"}, prices="none")
    with pytest.raises(
        UsageError, match=r"MY_KEY is set to makes \$\{MY_KEY\} no path.* set target\.key_env"
    ) as refused:
        cometbatch.plan(job)
    refuse_pieces([("error", repr(refused.value))], NO_SHAPE)


@given(st.text("${}AB_(/", max_size=12))
def test_what_is_filled_in_is_not_looked_at_again(value: str) -> None:
    """Law: each variable is replaced once, whatever it holds, and what is left of a text has none."""
    names = variables_in([value])
    assert without_variables(filled(value, dict.fromkeys(names, ""))) == without_variables(without_variables(value))
    assert filled(value, {name: f"${{{name}}}" for name in names}) == value
    assert not has_stray_dollar(value.replace("$", ""))
