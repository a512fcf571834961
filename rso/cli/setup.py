"""Setting up: init, load, export, stamp."""

import itertools
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli
from cyclopts import App, Parameter

from rso.cli.shared import Config, Json, NoConfig, fail, print_json, run_with_engine
from rso.core.errors import ConfigError

__all__ = ["register"]


def register(app: App) -> None:
    """Add the commands."""
    for command in (init, load, export, stamp):
        app.command(command)


def init(
    directory: Path = Path(),
    *,
    set_: Annotated[
        list[str] | None, Parameter(name="--set", help="section.key=value", negative="")
    ] = None,
    json: Json = False,
) -> None:
    """Write rso.toml with every default, and make the database and an administrator."""
    from rso.cli.template import write_config  # noqa: PLC0415
    from rso.ledger.people import upsert_user  # noqa: PLC0415
    from rso.settings import load_settings  # noqa: PLC0415

    path = directory.absolute() / "rso.toml"
    if path.exists():
        fail(f"{path} exists already")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # one that is there stays as it is
    write_config(path, set_ or [])
    password = secrets.token_urlsafe(12)
    email = "admin@localhost.localdomain"
    try:
        settings = load_settings(path)
        for folder in (settings.data_dir, settings.archive_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

        async def work(engine: Any) -> None:
            await upsert_user(
                engine.ledger, email=email, role="admin", name="Administrator", password=password
            )

        run_with_engine(path, work)
    except BaseException:
        path.unlink(missing_ok=True)  # a failed init can be run again
        raise
    if json:
        print_json({"config": str(path), "admin": {"email": email, "password": password}})
    else:
        sys.stdout.write(
            f"Wrote {path}\n\nAdministrator  {email}\nPassword       {password}\n\n"
            f"Next: rso load site.toml --config {path}\n      rso serve --config {path}\n"
        )


def load(site: Path, *, config: Config = None, json: Json = False) -> None:
    """Add and change facilities, sources, radiologists and people from a site.toml."""
    from rso.engine.site import apply_site  # noqa: PLC0415
    from rso.settings import resolve_secrets  # noqa: PLC0415

    try:
        document = resolve_secrets(tomli.loads(site.read_text("utf-8")), site.parent)
    except (ConfigError, OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as exc:
        raise ConfigError(f"{site}: {exc}") from exc

    async def work(engine: Any) -> dict[str, Any]:
        try:
            return await apply_site(engine, document, actor="rso load")
        except ConfigError as exc:
            raise ConfigError(f"{site}: {str(exc).removeprefix('site.toml: ')}") from exc

    summary = run_with_engine(config, work)
    if json:
        print_json(summary)
        return
    for warning in summary["warnings"]:
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.write(
        f"{summary['facilities']} facilities, {summary['radiologists']} radiologists,"
        f" {summary['users']} users\n"
    )


def export(*, config: Config = None, json: Json = False) -> None:
    """Print everything that load takes, with hashes instead of passwords."""
    import tomlkit  # noqa: PLC0415

    from rso.ledger.site_export import export_site  # noqa: PLC0415

    document = run_with_engine(config, lambda engine: export_site(engine.ledger))
    if json:
        print_json(document)
    else:
        sys.stdout.write(tomlkit.dumps(document))


def stamp(
    number: str,
    paths: list[Path],
    *,
    out: Path,
    json: Json = False,
    config: NoConfig = None,  # noqa: ARG001
) -> None:
    """Copy DICOM files with the exam number as their Patient ID, all else byte for byte.

    Of several folders each has one of its own below --out. The exit code is 1 when nothing was
    stamped, or a DICOM file was not.
    """
    from rso.core.errors import ExamError, IntakeError, NotDicomError  # noqa: PLC0415
    from rso.core.number import parse_number  # noqa: PLC0415
    from rso.dicom.stamp import stamp_file  # noqa: PLC0415

    try:
        plain = parse_number(number)
    except ExamError as exc:
        fail(str(exc))
        return
    out.mkdir(parents=True, exist_ok=True)
    stamped: list[str] = []
    skipped: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for file, target in _targets(paths, out):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stamp_file(file, target, plain)
        except NotDicomError as exc:
            skipped.append({"file": str(file), "reason": str(exc)})
        except (IntakeError, OSError) as exc:
            failed.append({"file": str(file), "reason": str(exc)})
        else:
            stamped.append(str(target))
    if json:
        print_json({"stamped": stamped, "skipped": skipped, "failed": failed})
    else:
        for word, entries in (("skipped", skipped), ("failed", failed)):
            for entry in entries:
                sys.stderr.write(f"{word} {entry['file']}: {entry['reason']}\n")
        said = f"{len(stamped)} files stamped, {len(skipped)} skipped"
        sys.stdout.write(f"{said}, {len(failed)} failed\n" if failed else f"{said}\n")
    if failed or not stamped:
        raise SystemExit(1)


def _targets(paths: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Each file with where its copy goes: no two of one run to the same place."""
    taken: set[Path] = set()

    def free(name: str) -> Path:
        stem, suffix = Path(name).stem, Path(name).suffix
        names = itertools.chain([name], (f"{stem}-{n}{suffix}" for n in itertools.count(2)))
        found = next(out / name for name in names if out / name not in taken)
        taken.add(found)
        return found

    for path in paths:
        if path.is_dir():
            base = out if len(paths) == 1 else free(path.resolve().name)
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                yield file, base / file.relative_to(path)
        else:
            yield path, free(path.name)
