"""How a key is recognised, and how names and values are shown in messages without ever showing one.

Guards that no secret is in a job, nor in a message about it.
"""

import re

from cometbatch.job.tree import List, Map, Node, Problems, Scalar, is_text
from cometbatch.records import KEY_SHAPE

MAX_SHOWN_CHARACTERS = 40
KEYS_DO_NOT_BELONG = (
    "keys do not belong in job files; put it in an environment variable and name that in target.key_env, or in a file "
    "and name that in target.key_file"
)

_SECRET_NAME = re.compile(
    "(x_|goog_|comet_?|api_?|access_?|secret_?|auth_?)*(key|token)|auth(orization)?|bearer|credentials?|passw(or)?d|secret"
)
_SECRET = re.compile(KEY_SHAPE.pattern + r"|AIza[\w-]{10,}|\bbearer\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_SECRET_IN_PROSE = re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}")
_LONG_MIXED = re.compile(r"(?=\S*[0-9])(?=\S*[A-Za-z])\S{20,}")
_NO_TEXT = re.compile(r"\\u(dc[89a-f][0-9a-f])")  # how `printable` writes a byte from 0x80 on
_KEY_AS_NAME = re.compile(r"sk.*|(?=.*[0-9])[^_]{20,}|.{101,}", re.DOTALL)


def shown(text: str) -> str:
    """A value for a message: shortened, and replaced by words where it could be a secret."""
    if _may_be_secret(text):
        return "a value that is not shown here"
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 1] + "…"
    return ascii(cut) if re.search("[\ud800-\udfff]", cut) else repr(cut)


def printable(path: object) -> str:
    """A file's name, with escapes for its bytes that are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def unprinted(text: str) -> str:
    """The file's name that `printable` wrote out."""
    return _NO_TEXT.sub(lambda found: chr(int(found[1], 16)), text)


def join(path: str, key: str) -> str:
    """A key path and one more key, which a message may show."""
    safe = key if re.fullmatch(r"[\w-]{1,40}", key) and not _may_be_secret(key) else shown(key)
    return f"{path}.{safe}" if path else safe


def is_key_for_a_name(name: str) -> bool:
    """Whether the name of an environment variable looks like the key that the variable should hold."""
    return _KEY_AS_NAME.fullmatch(name) is not None


def holds_secret(prose: str) -> bool:
    """Whether a text that goes to a model looks as if it held a key."""
    return _SECRET_IN_PROSE.search(prose) is not None


def refuse_secrets(node: Node, path: str, problems: Problems) -> None:
    """Note the place of every secret in the tree, never the secret itself."""
    match node:
        case Scalar(text=text):
            pattern = _SECRET_IN_PROSE if path.startswith("prompt.") else _SECRET
            if pattern.search(text):
                problems.add(node.where, path, f"this looks like a key: {KEYS_DO_NOT_BELONG}")
        case List(items=items):
            for at, item in enumerate(items):
                refuse_secrets(item, f"{path}[{at}]", problems)
        case Map(entries=entries):
            for key, value in entries.items():
                if _holds_secret(key, value, path):
                    way = "; in a header, write ${NAME} for a variable" if path == "target.headers" else ""
                    problems.add(node.keys[key].where, join(path, key), KEYS_DO_NOT_BELONG + way)
                else:
                    refuse_secrets(value, join(path, key), problems)


def _holds_secret(key: str, value: Node, path: str) -> bool:
    if _SECRET.search(key):
        return True
    if path == "target.headers" and is_text(value) and "${" in value.text:  # the variable holds it
        return False
    # The service's own names, and those of a schema: it may have a property "token".
    is_free = path.startswith(("params.extra", "response.schema"))
    is_named_so = _SECRET_NAME.fullmatch(key.lower().replace("-", "_"))
    return is_named_so is not None and (is_text(value) or not is_free)


def is_secret(text: str) -> bool:
    """Whether an API key, of one of the known shapes, stands in a text."""
    return _SECRET.search(text) is not None


def _may_be_secret(text: str) -> bool:
    """Whether to keep a value out of messages. A wrong yes does no harm: the message names the place all the same."""
    return bool(_SECRET.search(text) or _LONG_MIXED.search(text) or ("@" in text and "://" in text))
