"""The job: what `job.yaml` says, validated as a whole, with every problem found named by file, line and key.

Guards two promises: a job that loads can be run, as far as the job alone can tell; and no secret is in it, so that no
error, `repr` or fingerprint shows one.

A map, imports running downwards only:

    batch_lines     a vendor's batch file as a table, each line checked
    reading         sections -> Job, once they are found to fit together
    vendor_batch    what a batch file's first line says of the job
    messages        the messages of the prompt
    few_shot        examples that go before the messages of a row
    response        what answers must be: the schema's file, and whether its format can ask for it
    prices          the prices, by model
    sections        tree -> values by section and key, and whatever is wrong
    keys            the table of keys
    accepting       the bounds of accept: rows, or a share of them
    variables       ${NAME} in values: variables of the environment
    headers         target.headers: names, values and their variables
    extra           params.extra: YAML -> values that JSON has
    kinds           the kinds of values that keys take
    paths           where input and result are
    sources         a file or a mapping, with --set over it -> tree
    document        YAML -> tree, and YAML's traps
    settings        Job and its parts
    cells           the jobs of all cells -> one job
    axes            the section matrix -> axes, and what their values lay over the job
    matrix          axes, cells and samples
    targets         what is asked: format, model, prompt, parameters
    urls            base URLs
    secrets         how a key is recognised, and how values are shown
    tree            the nodes, their bounds, and the list of problems
"""

from cometbatch.job.key import JobKey
from cometbatch.job.keys import job_keys, job_keys_markdown
from cometbatch.job.reading import load_job
from cometbatch.job.settings import (
    InputSettings,
    Job,
    LimitSettings,
    OutputSettings,
    RetrySettings,
    SimulatorSettings,
    TargetSettings,
)
from cometbatch.job.targets import MessageTemplate, Response, Target

__all__ = [
    "InputSettings",
    "Job",
    "JobKey",
    "LimitSettings",
    "MessageTemplate",
    "OutputSettings",
    "Response",
    "RetrySettings",
    "SimulatorSettings",
    "Target",
    "TargetSettings",
    "job_keys",
    "job_keys_markdown",
    "load_job",
]
