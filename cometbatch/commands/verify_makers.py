"""`verify` makes each row's request again: as the run's job says it, and in the other ways of its sessions."""

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from cometbatch.commands.row_maker import Maker, images_for, row_maker
from cometbatch.commands.verify_report import Findings
from cometbatch.job import Job, Target
from cometbatch.job.matrix import sample_of
from cometbatch.job.targets import Template
from cometbatch.prompt.template import TemplateError
from cometbatch.records import MaxTokensField
from cometbatch.run_state.drift import OWN_RULES
from cometbatch.run_state.manifest import Manifest

Templates = Mapping[object, tuple[Template, Template]]
"""By prompt the compiled ones: that refuses empty prompts, and that sends them."""


class Makers:
    """How the requests of a run's rows are made again. `targets`: of the run, as its job says them."""

    def __init__(self, manifest: Manifest, job: Job, targets: Sequence[Target], templates: Templates) -> None:
        self._manifest, self._job, self._targets, self._templates = manifest, job, targets, templates
        self._of_targets = [self._ways(target) for target in targets]
        self._of_slice: tuple[int, Sequence[Sequence[Maker]]] = -1, ()

    def of_slice(self, number: int) -> Sequence[Sequence[Maker]]:
        """For each target the ways in which a row of this slice may have been asked of it."""
        if self._of_slice[0] != number:
            each, found = self._manifest.slices[number], list(self._of_targets)
            own = self._targets[each.target]
            if (sampled := sample_of(own, each.sample)) != own:
                found[each.target] = self._ways(sampled)
            self._of_slice = number, found
        return self._of_slice[1]

    def _ways(self, target: Target) -> list[Maker]:
        """These are other names of the token cap, and empty prompts that are sent."""
        names: tuple[MaxTokensField, ...] = ("max_completion_tokens", "max_tokens") if target.format == "chat" else ()
        spelt = [msgspec.structs.replace(target.params, max_tokens_field=name) for name in names]
        targets = [target, *(msgspec.structs.replace(target, params=params) for params in spelt)]
        pairs = itertools.product(self._templates[_prompt_of(target)], targets)
        images, columns = images_for(self._job, target), self._manifest.input.columns
        return [row_maker(each, template, columns, self._job.input.id, images) for template, each in pairs]


def makers_of(manifest: Manifest, job: Job, findings: Findings) -> Makers | None:
    """How the requests of a run are made again; None where that can't be done, which is noted."""
    cells = {cell.digest: cell.target for cell in job.cells()}
    first = manifest.targets if job.matrix is not None else manifest.targets[1:]
    digests = {slice_.target: slice_.cell for slice_ in manifest.slices}
    numbers = range(len(manifest.targets) - len(first), len(manifest.targets))
    known = [cells.get(digests.get(number, ""), each.target) for number, each in zip(numbers, first, strict=True)]
    targets = known if job.matrix is not None else [*job.targets(), *known]
    if any(target.has_images for target in targets) and not job.image_root.is_dir():
        findings.skip(f"the folder of images {job.image_root} is gone", "ids", "requests")
        return None
    templates: dict[object, tuple[Template, Template]] = {}
    try:
        for target in targets:
            if (prompt := _prompt_of(target)) not in templates:
                templates[prompt] = target.prompt_template(refuse_empty=True), target.prompt_template()
                templates[prompt][0].check(manifest.input.columns)
    except TemplateError as error:
        if has_same_rendering(manifest, job):
            findings.add("job", str(error), where="manifest.json")
        findings.skip("the manifest's templates can't be used", "ids", "requests")
        return None
    return Makers(manifest, job, targets, templates)


def _prompt_of(target: Target) -> object:
    return target.messages, target.conversation


def has_same_rendering(manifest: Manifest, job: Job) -> bool:
    """Whether this program makes prompts by the rules that the run was made with."""
    now = job.fingerprint()
    return all(manifest.fingerprint.get(key) == now.get(key) for key in OWN_RULES)
