"""Prints a command of the README, so that CI runs what newcomers paste: `python tests/readme_commands.py test`."""

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
NAMES = ("run", "test")  # the first two shell blocks of the README, in this order


def commands() -> dict[str, str]:
    """The README's first shell blocks by name."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {name: block.strip() for name, block in zip(NAMES, blocks, strict=False)}


if __name__ == "__main__":
    sys.stdout.write(commands()[sys.argv[1]] + "\n")
