"""Runs the recipes of docs/schedulers.md, each in its scheduler: `python -m tests.recipes.check [NAME ...]`.

Needs pip and, for cron and systemd, Debian and root. `RECIPES` names a folder whose environments are kept.
"""

import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.recipes import airflow, cron, dagster, forwarding, kubernetes, prefect, systemd
from tests.recipes.places import UnavailableError, made

RECIPES = {
    "cron": cron.check,
    "systemd": systemd.check,
    "kubernetes": kubernetes.check,
    "forwarding": forwarding.check,
    "dagster": dagster.check,
    "prefect": prefect.check,
    "airflow": airflow.check,
}


def main(names: list[str]) -> int:
    """A line for each recipe: what was tried, and the seconds. 1 where one fails; what can't be had is passed over."""
    kept = os.environ.get("RECIPES")
    folder = Path(kept or tempfile.mkdtemp(prefix="cometbatch-recipes-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environments, failed = folder / "environments", 0
    cometbatch = made("cometbatch", [], environments, beside=True).program("cometbatch")
    for name in names or RECIPES:
        began, place = time.monotonic(), folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            for line in RECIPES[name](place, environments, cometbatch):
                sys.stdout.write(f"{name}: {line}\n")
                sys.stdout.flush()
            word = "passed"
            shutil.rmtree(place)
        except UnavailableError as reason:
            word = f"skipped: {reason}"
        except Exception:  # noqa: BLE001 - one that fails does not keep the others from being tried
            failed += 1
            traceback.print_exc()
            word = f"FAILED; its files are in {place}"
        sys.stdout.write(f"{name}: {word}, {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
    if kept is None and not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
