"""``rso send``: upload files to an exam over HTTP, from anywhere, without RSO's configuration."""

import base64
import hashlib
import http.client
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from cyclopts import App, Parameter

from rso.cli.send_files import Found, dataset_digest, find
from rso.cli.shared import Json, fail, print_json

__all__ = ["register"]

_GROUP_FILES = 50
_GROUP_BYTES = 64 << 20
_PIECE = 16 << 20
_TRIES = 8
_MOST_PAUSE = 60


def register(app: App) -> None:
    """Add the command."""
    app.command(send)


def send(
    number: str,
    paths: list[Path],
    *,
    url: Annotated[str, Parameter(env_var="RSO_URL", help="RSO's address")] = "",
    token: Annotated[str, Parameter(env_var="RSO_TOKEN", help="an API token")] = "",
    stamp: Annotated[bool, Parameter(negative="", help="set Patient ID to the number")] = False,
    config: Annotated[
        Path | None, Parameter(name="--config", help="rso.toml, for the address of a local RSO")
    ] = None,
    json: Json = False,
) -> None:
    """Upload files, folders or ZIPs to an exam; run again, it sends only what is missing."""
    from rso.core.errors import ExamError  # noqa: PLC0415
    from rso.core.number import parse_number  # noqa: PLC0415

    try:
        plain = parse_number(number)
    except ExamError as exc:
        fail(str(exc))
        return
    if not url:
        from rso.settings import load_settings  # noqa: PLC0415

        url = load_settings(config).base_url
    if not token:
        fail("an API token is needed: --token or RSO_TOKEN (rso token create makes one)")
    with tempfile.TemporaryDirectory() as folder:
        found = find(paths, plain if stamp else "", Path(folder))
        if not found.count:
            fail("\n".join(["none of these is a DICOM instance", *found.failed]))
        report = _send_all(_Client(url, token, plain), found)
    if json:
        print_json(report)
    else:
        sys.stdout.write(_words(report))
        for reason in (*report["reasons"], *report["failed"]):
            sys.stderr.write(f"{reason}\n")
    if report["stored"] != report["total"]:
        raise SystemExit(1)


def _words(report: Mapping[str, Any]) -> str:
    same = f", {report['same']} the same as another" if report["same"] else ""
    return (
        f"{report['stored']} of {report['total']} stored safely"
        f" ({report['already']} were there already),"
        f" {len(report['skipped'])} skipped that are no instances{same}\n"
    )


class _Client:
    """Requests to one exam, each on a fresh connection, tried again when the line breaks."""

    def __init__(self, url: str, token: str, number: str) -> None:
        self._url = urlsplit(url)
        self._token = token
        self._base = f"{self._url.path.rstrip('/')}/api/exams/{number}"

    def ask(
        self,
        path: str,
        content_type: str,
        size: int,
        body: Callable[[], Iterator[bytes]],
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and JSON of a request; it is tried again while RSO or the line is away."""
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        pause, told = 0.5, 0
        for attempt in range(1, _TRIES + 1):
            connection = kind(self._url.netloc, timeout=120)
            try:
                sent = {
                    "Authorization": f"Bearer {self._token}",
                    "Content-Type": content_type,
                    "Content-Length": str(size),
                    "Accept": "application/json",
                    **(headers or {}),
                }
                connection.request(method, self._base + path, body(), sent)
                answer = connection.getresponse()
                data = answer.read()
                if answer.status not in {429, 502, 503, 507} or attempt == _TRIES:
                    return answer.status, msgspec.json.decode(data) if data else {}
                told = _told(answer)
            except (OSError, http.client.HTTPException) as exc:
                if attempt == _TRIES:
                    fail(f"the connection to {self._url.netloc} broke: {exc}")
            finally:
                connection.close()
            time.sleep(told or pause)
            pause, told = min(pause * 2, 30), 0
        raise AssertionError

    def kept(
        self, uids: Sequence[str], *, complete: bool = False, files: Sequence[object] = ()
    ) -> set[str]:
        """Which of these are stored already; with the very bytes, where ``files`` tell them."""
        body = msgspec.json.encode({"instances": list(uids), "complete": complete, "files": files})
        status, answer = self.ask("/uploads", "application/json", len(body), lambda: iter([body]))
        if status != 200:
            fail(str(answer.get("detail", f"RSO answered {status}")))
        return set(answer["kept"])

    def store_large(
        self, uid: str, file: Path, advance: Callable[[int], None]
    ) -> tuple[set[str], Any]:
        """Upload one large file in pieces, going on where an earlier try ended."""
        size = file.stat().st_size
        offset = 0
        with file.open("rb") as opened:
            # Of another version of it, however alike, nothing is gone on with.
            identity = hashlib.file_digest(opened, "sha256").hexdigest()
            while True:
                opened.seek(offset)
                data = opened.read(_PIECE)
                digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
                status, answer = self.ask(
                    f"/uploads/{uid}", "application/octet-stream", len(data),
                    lambda data=data: iter([data]), method="PATCH",  # type: ignore[misc]
                    headers={"Upload-Offset": str(offset), "Upload-Length": str(size),
                             "Upload-Identity": identity, "Content-Digest": f"sha-256=:{digest}:"},
                )  # fmt: skip
                if status == 200 and answer["stored"]:
                    advance(size - offset)
                    return {uid}, []
                # A repeated piece whose answer was lost is answered with where to go on.
                if status != 200 and "offset" not in answer:
                    return set(), [str(answer.get("detail", f"RSO answered {status}"))]
                advance(answer["offset"] - offset)
                offset = answer["offset"]

    def store(self, files: Sequence[Path], advance: Callable[[int], None]) -> tuple[set[str], Any]:
        """Upload a group; what is stored, and the reasons of the rest."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        end = f"--{boundary}--\r\n".encode()
        size = sum(len(head) + f.stat().st_size + 2 for f in files) + len(end)

        def body() -> Iterator[bytes]:
            for file in files:
                yield head
                with file.open("rb") as opened:
                    while data := opened.read(1 << 18):
                        yield data
                        advance(len(data))
                yield b"\r\n"
            yield end

        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        status, answer = self.ask("/studies", kind, size, body)
        if status not in {200, 202, 409, 507}:
            fail(str(answer.get("detail", f"RSO answered {status}")))
        stored = answer.get("00081199", {}).get("Value", [])
        return {s["00081155"]["Value"][0] for s in stored}, answer.get("reasons", [])


def _told(answer: http.client.HTTPResponse) -> int:
    """The seconds after which one who was told 429 is to come again, a minute at most; or 0."""
    said = answer.getheader("Retry-After", "").strip() if answer.status == 429 else ""
    return min(int(said[:9]), _MOST_PAUSE) if re.fullmatch("[0-9]+", said) else 0


def _send_all(client: _Client, found: Found) -> dict[str, Any]:
    """Send each round, and say that the exam is complete if nothing at all is missing."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    stored, already, reasons = 0, 0, set[str]()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        sizes = (file.stat().st_size for files in found.rounds for file in files.values())
        task = progress.add_task("uploading", total=sum(sizes))
        for files in found.rounds:
            there = _same(client, files)
            missing = {uid: file for uid, file in files.items() if uid not in there}
            progress.advance(task, sum(files[uid].stat().st_size for uid in there))
            kept, why = _send_round(client, missing, lambda n: progress.advance(task, n))
            stored += len(there | kept & files.keys())
            already += len(there)
            reasons |= why
    total = found.count + len(found.failed)
    if stored == total:
        client.kept(list(found.rounds[0]), complete=True)
    return {
        "stored": stored,
        "total": total,
        "already": already,
        "same": found.same,
        "skipped": found.skipped,
        "failed": found.failed,
        "reasons": sorted(reasons),
    }


def _same(client: _Client, files: Mapping[str, Path]) -> set[str]:
    """The UIDs of those that are stored with these very bytes."""
    named = client.kept(list(files)) & files.keys()
    if not named:
        return named
    claims = []
    for uid in sorted(named):
        digest, size = dataset_digest(files[uid])
        claims.append({"sop_instance_uid": uid, "size": size, "sha256": digest})
    return client.kept(sorted(named), files=claims)


def _send_round(
    client: _Client, files: Mapping[str, Path], advance: Callable[[int], None]
) -> tuple[set[str], set[str]]:
    """Upload files; the UIDs that are stored, and the reasons of the rest."""
    large = {uid for uid, file in files.items() if file.stat().st_size > _GROUP_BYTES}
    small = [file for uid, file in files.items() if uid not in large]
    stored, reasons = set[str](), set[str]()
    results = chain(
        (client.store(group, advance) for group in _groups(small)),
        (client.store_large(uid, files[uid], advance) for uid in sorted(large)),
    )
    for kept, why in results:
        stored |= kept
        reasons |= set(why)
    # RSO goes by the dataset: it has these, but nobody who asks by the file meta finds them.
    for uid in stored - files.keys():
        reasons.add(
            f"kept as {uid}: another SOP Instance UID stands in the file meta (0002,0003)"
            " than in the dataset (0008,0018); mend the file and send it again"
        )
    return stored, reasons


def _groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.stat().st_size
        if len(group) >= _GROUP_FILES or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
