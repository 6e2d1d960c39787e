"""Damage to files and texts, a pure function of a random generator."""

import io
import json
import zipfile
from random import Random

_WORDS = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\x01\0\0\0\0\0\0\0",
    b"\xff\xff",
    b"(" * 3000,
    b"[" * 3000,
    b"9" * 5000,
)
_TEXTS = (
    "",
    "0",
    "-1",
    "1e999",
    "nan",
    "-inf",
    "0x10",
    "1j",
    "9" * 5000,
    "None",
    "true",
    "[]",
    "{}",
    "(1,)",
    "('a', 2)",
    "(" * 3000,
    "-" * 3000,
    "[" * 3000,
    "2**9999",
    "9**-0.5",
    "'",
    '"',
    "\\",
    "\0",
    "\udce9",
    "é\u0301",
    "\u0663",
    "=",
    ",",
    ":",
    " ",
    "\n",
    "\t",
    "..",
    "~",
    "/",
    "x" * 300,
)
_VALUES = (
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "x",
    "\ud800",
    [],
    [[]],
    ["x", 1],
    {},
    {"x": {"y": []}},
)


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """Returns bytes with one to four places changed, added, left out, copied, or cut off."""
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(content) + 1), random.choice((1, 1, 4, 64, 1000))
        before, after = content[:at], content[at:]
        match random.randrange(7):
            case 0:
                content = before + bytes([random.randrange(256)]) + after[1:]
            case 1 if after:
                content = before + bytes([after[0] ^ 1 << random.randrange(8)]) + after[1:]
            case 2:
                word = random.choice(_WORDS[:6])
                content = before + word + after[len(word) :]
            case 3:
                content = before + random.choice(_WORDS) + after
            case 4:
                content = before + after[length:]
            case 5:
                other = random.randrange(len(content) + 1)
                content = before + content[other : other + length] + after
            case 6 if random.random() < 0.3:
                content = before
    return content


def damaged_start(random: Random, content: bytes) -> bytes:
    """Does the same to the first bytes, where files say what they hold."""
    length = random.choice((16, 64, 400))
    return damaged_bytes(random, content[:length]) + content[length:]


def damaged_zip(random: Random, content: bytes) -> bytes:
    """Returns an intact archive with damage in one of its files, or in its name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(list(files))
    inner = files.pop(name)
    if random.random() < 0.2:
        name = damaged_text(random, name).replace("\udce9", "").replace("\ud800", "") or "x"
    else:
        inner = random.choice((damaged_bytes, damaged_start))(random, inner)
    files[name[:1000]] = inner
    out = io.BytesIO()
    compression = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", compression) as new:
        for each, data in files.items():
            new.writestr(each, data)
    return out.getvalue()


def damaged_text(random: Random, text: str) -> str:
    """Returns a text with one to three places replaced by odd ones."""
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(text) + 1)
        end = min(len(text), at + random.choice((0, 0, 1, 3, 10)))
        text = text[:at] + random.choice(_TEXTS) + text[end:]
    return text


def damaged_json(random: Random, value: object) -> object:
    """Returns plain JSON values with one of them replaced, renamed, left out or buried deep."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        copy = dict(value)
        match random.randrange(10):
            case 0:
                del copy[key]
            case 1:
                copy[random.choice(_TEXTS)] = copy.pop(key)
            case _:
                copy[key] = damaged_json(random, copy[key])
        return copy
    if random.random() < 0.1:
        for _ in range(400):
            value = random.choice(({"a": value}, [value]))
        return value
    return random.choice(_VALUES)


def damaged_json_text(random: Random, value: object) -> bytes:
    """Returns the text of JSON values with damage in the values, the text or its bytes."""
    match random.randrange(4):
        case 0:
            text = damaged_text(random, json.dumps(value))
            return text.encode("utf-8", "surrogateescape")
        case 1:
            return damaged_bytes(random, json.dumps(value).encode())
        case _:
            return json.dumps(damaged_json(random, value)).encode()


def odd_text(random: Random) -> str:
    """Returns a text that is odd by itself."""
    return random.choice(_TEXTS)
