"""The section `judge`, read as the job that it is: a table of answers, a prompt that shows them, a schema for verdicts.

Guards that whatever a job is checked for is checked of the judge's, too, each problem with its place, and that the
judge sees what it is asked about.
"""

from typing import Final

import msgspec

from cometbatch.errors import JobError, did_you_mean
from cometbatch.job.cells import ReadOne
from cometbatch.job.judge_keys import PAIRWISE, RESPONSE_KEYS, RUBRIC, SECTIONS, SINGLE, WAYS
from cometbatch.job.judging import ANSWER, FIRST, SECOND, VERDICT_SCHEMA, Pairwise, Rubric
from cometbatch.job.keys import JUDGE, KEYS
from cometbatch.job.kinds import expected
from cometbatch.job.paths import judged_beside
from cometbatch.job.sections import Sections
from cometbatch.job.settings import Job, JudgeSettings
from cometbatch.job.sources import node_of
from cometbatch.job.tree import Map, Node, Problems, Scalar, is_null
from cometbatch.results.slices import text_of

PREFIX: Final = "judge_"
"""Before the names of all columns that a judge's result adds to the table of answers."""
_OF_THE_JOB: Final = ("simulator", "limits", "retry", "telemetry")
"""Sections of the job that hold for its judge as well."""
_NOT_TAKEN: Final = ("format", "model", "model_column")
"""Keys of the job's target that are not the address of the service."""


def read_judge(node: Node, tree: Map, job: Job, problems: Problems, read_one: ReadOne) -> JudgeSettings | None:
    """How a job's answers are judged; None where that is wrong, which is noted. `tree`: the job without the section."""
    own = Problems(f"{JUDGE}.")
    found = _read(node, tree, job, own, read_one)
    problems.lines += own.lines
    return found if not own.lines else None


def _read(node: Node, tree: Map, job: Job, problems: Problems, read_one: ReadOne) -> JudgeSettings | None:
    if not isinstance(node, Map):
        problems.add(node.where, "", str(expected("a mapping with target, prompt and pairwise or rubric", node)))
        return None
    _check_keys(node, problems)
    way = _way(node, problems)
    if way is None:
        return None
    settings = _pairwise(node, job, problems) if way == PAIRWISE else _rubric(node, problems)
    if settings is None or problems.lines:
        return None
    schema = VERDICT_SCHEMA if isinstance(settings, Pairwise) else settings.schema
    before = len(problems.lines)
    try:
        judge = read_one(Sections(_as_job(node, tree, job, schema), problems), drops_seed=False)
    except JobError as error:
        if len(problems.lines) == before:
            problems.add(node.where, "", str(error))
        return None
    _check_prompt(node, judge, way, problems)
    if judge.images.root is None:
        judge = msgspec.structs.replace(judge, images=msgspec.structs.replace(judge.images, root=job.image_root))
    return JudgeSettings(judge, settings)


def _check_keys(node: Map, problems: Problems) -> None:
    for name, each in node.entries.items():
        where = node.keys[name].where
        if name not in (*WAYS, *SECTIONS, *SINGLE):
            near = did_you_mean(name, (*WAYS, *SECTIONS, *SINGLE))
            problems.add(where, name, "unknown key" + (f"; {near}" if near else ""))
        elif name == "response" and isinstance(each, Map):
            for key in each.entries.keys() - {*RESPONSE_KEYS}:
                problems.add(
                    each.keys[key].where, f"response.{key}", "is the judge's own: only mode and max_asks are set"
                )
        elif name == "prompt" and isinstance(each, Map):
            for key in each.entries.keys() & {"messages_column", "few_shot"}:
                problems.add(each.keys[key].where, f"prompt.{key}", "can't show the answers: use user or messages")


def _way(node: Map, problems: Problems) -> str | None:
    """How the judge is asked: in pairs, or by a rubric."""
    ways = [way for way in WAYS if not is_null(node.entries.get(way))]
    if len(ways) == 1:
        return ways[0]
    words = f"expected one of {PAIRWISE} and {RUBRIC}, found {'both' if ways else 'none'}"
    problems.add(node.where, "", words)
    return None


def _values(node: Map, way: str, problems: Problems) -> dict[str, object] | None:
    """The values of a way's own keys; None where one is wrong."""
    before, section = len(problems.lines), node.entries[way]
    if not isinstance(section, Map):
        problems.add(section.where, way, str(expected(f"a mapping with {' or '.join(WAYS[way])}", section)))
        return None
    values = Sections(Map(node.where), problems).read_map(way, section, WAYS[way])
    return values if len(problems.lines) == before else None


def _pairwise(node: Map, job: Job, problems: Problems) -> Pairwise | None:
    values, where = _values(node, PAIRWISE, problems), node.entries[PAIRWISE].where
    if values is None:
        return None
    is_all = bool(values.pop("all", False))
    if is_all == ("baseline" in values):
        problems.add(where, PAIRWISE, "expected one of baseline and all: true")
        return None
    cells = () if job.matrix is None else job.matrix.cells
    if job.matrix is None or len(cells) < 2:  # noqa: PLR2004 - two answers to compare
        problems.add(where, PAIRWISE, "there is one cell alone, and nothing to compare: give the job a matrix")
        return None
    found = msgspec.convert(values, Pairwise)
    if found.baseline is not None:
        axes = [axis for axis in job.matrix.axes if found.baseline in map(text_of, axis.labels)]
        if len(axes) != 1:
            labels = [text_of(label) for axis in job.matrix.axes for label in axis.labels]
            said = did_you_mean(found.baseline, labels) or f"the labels are {', '.join(labels[:20])}"
            words = "no axis has this label" if not axes else f"the axes {axes[0].column} and {axes[1].column} have it"
            problems.add(where, f"{PAIRWISE}.baseline", f"{words}: {said}" if not axes else words)
            return None
    return found


def _rubric(node: Map, problems: Problems) -> Rubric | None:
    values = _values(node, RUBRIC, problems)
    if values is None:
        return None
    if "criteria" not in values:
        problems.add(node.entries[RUBRIC].where, f"{RUBRIC}.criteria", "is missing")
        return None
    return msgspec.convert(values, Rubric)


def _as_job(node: Map, tree: Map, job: Job, schema: dict[str, object]) -> Map:
    """The job that asks the judge about a table of answers. Its paths only stand for those of each table."""
    where = node.where
    folder = judged_beside(job.output.path)
    made = Map(where)

    def put(name: str, value: Node) -> None:
        made.put(Scalar(where, "str", name), value)

    put("input", node_of({"path": str(folder / "_table.parquet")}, where))
    put("output", node_of({"path": str(folder / "table.parquet"), "prefix": PREFIX}, where))
    for name in _OF_THE_JOB:
        if not is_null(tree.entries.get(name)):
            put(name, tree.entries[name])
    for name in (*SECTIONS, *SINGLE):
        own = node.entries.get(name)
        if own is not None and not is_null(own):
            put(name, _over(made.entries.get(name), own) if name in _OF_THE_JOB else own)
    address = tree.entries.get("target")
    if isinstance(address, Map):
        kept = Map(address.where)
        for key, value in address.entries.items():
            if key in KEYS["target"] and key not in _NOT_TAKEN:
                kept.put(address.keys[key], value)
        put("target", _over(kept, made.entries.get("target") or Map(where)))
    put(
        "response",
        _over(node_of({"schema": schema, "prefix": PREFIX}, where), made.entries.get("response") or Map(where)),
    )
    return made


def _over(base: Node | None, own: Node) -> Node:
    """A mapping laid over another one, key by key."""
    if not isinstance(base, Map) or not isinstance(own, Map):
        return own
    both = Map(own.where, dict(base.entries), dict(base.keys))
    for name, value in own.entries.items():
        both.put(own.keys[name], value)
    return both


def _check_prompt(node: Map, judge: Job, way: str, problems: Problems) -> None:
    """Note a prompt that does not show what is judged."""
    (target,) = judge.targets()
    template = target.prompt_template()
    where = node.entries["prompt"].where if "prompt" in node.entries else node.where
    if template.needs_all_columns:
        problems.add(where, "prompt", "row as a whole holds the answers in one order: name the columns that are shown")
    needed = (FIRST, SECOND) if way == PAIRWISE else (ANSWER,)
    for name in needed:
        if name not in template.columns_needed:
            problems.add(where, "prompt", f"does not show what is judged: write {{{{ {name} }}}} where it stands")
