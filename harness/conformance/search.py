"""The search that proves that no artifact has a secret: the canary, the run's marker, and what was issued in the run.

Every secret is looked for in each form that a program may give it, inside archives and across line breaks. What the
lab's AWS mints during a run begins with the run's marker (:mod:`harness.conformance.issued`), so one search for that
finds all of it; the rest, such as the signatures of tokens, is looked for one by one.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import secrets
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from harness.conformance import canary as canaries
from harness.conformance.issued import new_marker
from harness.errors import HarnessFault

__all__ = ["Found", "Search", "encodings", "prove_search"]

_DEEPEST = 3
"""Archives in archives that are looked into."""
_LARGEST = 64 << 20
"""Bytes of a member that are looked at."""
_WINDOW = 40
"""Characters of a secret that are looked for: enough to be sure, and a secret that was cut off is one too."""
_CHUNK = 16
_HEXADECIMAL = {"hex": "{:02x}", "percent": "%{:02x}", "JSON": "\\u{:04x}", "HTML": "&#{};", "HTML hex": "&#x{:x};"}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; never the secret itself."""

    secret_class: str
    """Such as ``canary`` or ``secret access key``."""
    encoding: str

    def __str__(self) -> str:
        return f"{self.secret_class} ({self.encoding})"


def encodings(secret: str) -> dict[str, bytes]:
    """Return the forms that a secret would have in an artifact, by name; those with hex digits in small letters."""
    raw = secret.encode()
    forms = {"plain": raw}
    for offset in range(3):
        # Of the middle of a longer base64 text: the first and last characters depend on the neighbours.
        encoded = base64.b64encode(b"\0" * offset + raw + b"\0" * ((-offset - len(raw)) % 3))
        forms[f"base64 at {offset}"] = form = encoded[4 if offset else 0 : -4].rstrip(b"=")
        forms[f"base64url at {offset}"] = form.translate(bytes.maketrans(b"+/", b"-_"))
    forms["URL"] = quote(secret, safe="").encode()
    forms["JSON text"] = json.dumps(secret)[1:-1].replace("/", "\\/").encode()
    # The escapes of a program that escapes everything.
    return forms | {name: "".join(map(form.format, raw)).encode() for name, form in _HEXADECIMAL.items()}


@dataclass(slots=True)
class _Forms:
    """Forms to look for: short ones one by one, long ones by an index, however many there are."""

    short: dict[bytes, Found] = field(default_factory=dict[bytes, Found])
    index: dict[bytes, list[tuple[bytes, Found]]] = field(
        default_factory=lambda: defaultdict[bytes, list[tuple[bytes, Found]]](list)
    )
    """Every chunk that an aligned piece of a text could be, if the form stood in it."""

    def add(self, form: bytes, found: Found) -> None:
        if len(form) < 2 * _CHUNK - 1:
            self.short.setdefault(form, found)
            return
        for at in range(_CHUNK):
            self.index[form[at : at + _CHUNK]].append((form, found))

    def find(self, text: bytes) -> Found | None:
        for form, found in self.short.items():
            if form in text:
                return found
        chunks = {text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)} if self.index else set[bytes]()
        candidates = (entry for chunk in chunks & self.index.keys() for entry in self.index[chunk])
        return next((found for form, found in candidates if form in text), None)


class Search:
    """Looks for the secrets of one run."""

    def __init__(self, canary: str, marker: str = "", issued: Mapping[str, str] | None = None) -> None:
        """Prepare all forms.

        Args:
            canary: The run's canary.
            marker: What every secret that AWS mints in the run contains.
            issued: Secret → its class, of what was issued in the run.
        """
        self._exact, self._small = _Forms(), _Forms()
        self._add(canary, "canary")
        if marker:
            self._add(marker, "AWS secret with the run's marker")
        for secret, secret_class in (issued or {}).items():
            if not marker or marker not in secret[:_WINDOW]:
                self._add(secret[:_WINDOW], secret_class)

    def _add(self, secret: str, secret_class: str) -> None:
        for name, form in encodings(secret).items():
            (self._small if name in _HEXADECIMAL else self._exact).add(form, Found(secret_class, name))

    def find(self, content: bytes) -> Found | None:
        """Return what bytes contain, or None; looks into archives."""
        for part in _unpacked(content, _DEEPEST):
            # Line breaks in base64 and e-mail do not hide it.
            joined = part.replace(b"\r", b"").replace(b"\n", b"")
            if found := self._exact.find(joined) or self._small.find(joined.lower()):
                return found
        return None

    def scan(self, directory: Path) -> Iterator[tuple[Path, Found]]:
        """Yield every file below a directory that contains a secret, and which kind."""
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            if found := self.find(file.read_bytes()):
                yield file, found


def _unpacked(content: bytes, deep: int) -> Iterator[bytes]:
    """Yield bytes, and what is in them if they are an archive; of tar, members stand in it as they are."""
    yield content
    if deep == 0:
        return
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError):
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                yield from _unpacked(stream.read(_LARGEST), deep - 1)
        elif content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.namelist():
                    with archive.open(member) as stream:
                        yield from _unpacked(stream.read(_LARGEST), deep - 1)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    if (stream := archive.extractfile(member)) is not None:
                        yield from _unpacked(stream.read(_LARGEST), deep - 1)


def prove_search() -> list[str]:
    """Plant secrets of each class in files that are thrown away, one for each form, and return the forms' names.

    Raises:
        HarnessFault: The search does not find one of them, so its silence means nothing.
    """
    marker = new_marker()
    canary, signature = canaries.new(), secrets.token_urlsafe(256)
    search = Search(canary, marker, {signature: "token signature"})
    planted: dict[str, bytes] = {}
    for name, secret in (("canary", canary), ("marker", marker), ("signature", signature)):
        raw = secret.encode()
        for form, content in encodings(secret[:_WINDOW] if secret is signature else secret).items():
            planted[f"{name} {form}"] = b"x" + content + b"y"
        planted[f"{name} line breaks"] = b"\n".join(raw[at : at + 7] for at in range(0, len(raw), 7))
        planted[f"{name} gzip"] = gzip.compress(raw)
        planted[f"{name} tar.gz"], planted[f"{name} zip"] = _tar(raw), _zip(raw)
    with tempfile.TemporaryDirectory(prefix="podid-canary-") as told:
        directory = Path(told)
        for name, content in planted.items():
            (directory / name.replace(" ", "-")).write_bytes(content)
        found = {file.name for file, _ in search.scan(directory)}
    if missing := [name for name in planted if name.replace(" ", "-") not in found]:
        raise HarnessFault(f"the search for secrets is blind for {', '.join(missing)}")
    return list(dict.fromkeys(name.partition(" ")[2] for name in planted))


def _tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("secret")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("secret", content)
    return stream.getvalue()
