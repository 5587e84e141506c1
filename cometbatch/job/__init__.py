"""The job: what `job.yaml` says, validated as a whole, with every problem found named by file, line and key.

Guards two promises: a job that loads can be run, as far as the job alone can tell; and no secret is in it, so that no
error, `repr` or fingerprint shows one.

A map, imports running downwards only:

    reading     sections -> Job, once they are found to fit together
    messages    the messages of the prompt
    prices      the prices, by model
    sections    tree -> values by section and key, and whatever is wrong
    keys        the table of keys
    headers     target.headers: names, values and their variables
    extra       params.extra: YAML -> values that JSON has
    kinds       the kinds of values that keys take
    paths       where input and result are
    sources     a file or a mapping, with --set over it -> tree
    document    YAML -> tree, and YAML's traps
    settings    Job and its parts
    targets     what is asked: format, model, prompt, parameters
    urls        base URLs
    secrets     how a key is recognised, and how values are shown
    tree        the nodes, their bounds, and the list of problems
"""

from cometbatch.job.keys import JobKey, job_keys, job_keys_markdown
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
from cometbatch.job.targets import MessageTemplate, Target

__all__ = [
    "InputSettings",
    "Job",
    "JobKey",
    "LimitSettings",
    "MessageTemplate",
    "OutputSettings",
    "RetrySettings",
    "SimulatorSettings",
    "Target",
    "TargetSettings",
    "job_keys",
    "job_keys_markdown",
    "load_job",
]
