"""The section `engine` -> its settings, with every problem noted."""

from typing import Any

from cometbatch.job.engine import EngineSettings, RaySettings
from cometbatch.job.engine_keys import RAY_KEYS
from cometbatch.job.kinds import expected
from cometbatch.job.sections import Sections
from cometbatch.job.tree import Map


def read_engine(sections: Sections) -> EngineSettings:
    """Who sends the calls. Notes what is wrong with it."""
    values: dict[str, Any] = sections.values["engine"]
    node = values.get("ray")
    if node is None:
        return EngineSettings(**sections.given("engine"))
    if not isinstance(node, Map):
        sections.refuse("engine.ray", str(expected("a mapping", node)))
        return EngineSettings()
    ray = sections.read_map("engine.ray", node, RAY_KEYS)
    if None in ray.values() or None in values.values():
        return EngineSettings()
    return EngineSettings(**{**values, "ray": RaySettings(**ray)})
