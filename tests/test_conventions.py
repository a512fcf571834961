"""What the house agreed on, checked."""

import ast
import inspect
from pathlib import Path

import pytest

from rso.core import hookspecs
from rso.plugins import config_table

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"core"},
    {"plugins", "dicom", "ledger", "settings", "logs"},
    {"engine"},
    {"web", "testing"},
    {"app", "roles", "cli", "demo", "__main__"},
]
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
MODULES = sorted(
    p for p in (ROOT / "rso").rglob("*.py") if p.name != "__init__.py" or p.parent.name != "rso"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """No module imports a layer above its own."""
    parts = path.relative_to(ROOT / "rso").parts
    own = RANK[parts[0].removesuffix(".py")]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rso."):
            other = (node.module or "").split(".")[1]
            assert RANK[other] <= own or parts[0] == "testing", (path.name, node.module)


def test_core_is_pure() -> None:
    """The core imports no web, database or DICOM library."""
    for path in (ROOT / "rso" / "core").glob("*.py"):
        text = path.read_text()
        for library in ("litestar", "piccolo", "pynetdicom", "pydicom"):
            assert f"import {library}" not in text
            assert f"from {library}" not in text


def test_all_is_sorted_and_true() -> None:
    """Every ``__all__`` names what exists."""
    for path in MODULES:
        tree = ast.parse(path.read_text())
        names = {getattr(n, "name", "") for n in tree.body}
        names |= {
            t.id
            for n in tree.body
            if isinstance(n, ast.Assign)
            for target in n.targets
            for t in ast.walk(target)
            if isinstance(t, ast.Name)
        }
        names |= {a.asname or a.name for n in tree.body
                  if isinstance(n, ast.ImportFrom) for a in n.names}  # fmt: skip
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                assert set(ast.literal_eval(node.value)) <= names, path


def test_every_hook_is_documented_with_its_signature() -> None:
    """docs/plugins.md has a heading for each hook."""
    text = (ROOT / "docs" / "plugins.md").read_text()
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("rso_"):
            assert f"### `{name}(" in text
            assert inspect.getdoc(function) in text


def test_readme_tables_are_current() -> None:
    """A plugin's README shows its configuration as it is."""
    from rso_dicom_scp.plugin import DicomScpConfig  # noqa: PLC0415
    from rso_dicom_scu.plugin import DicomScuConfig, DicomScuOptions  # noqa: PLC0415
    from rso_http_upload.plugin import HttpUploadConfig  # noqa: PLC0415

    scp = (ROOT / "plugins" / "dicom_scp" / "README.md").read_text()
    scu = (ROOT / "plugins" / "dicom_scu" / "README.md").read_text()
    from rso_email.plugin import EmailConfig  # noqa: PLC0415
    from rso_fax.plugin import FaxConfig  # noqa: PLC0415
    from rso_ftp.config import FtpConfig  # noqa: PLC0415
    from rso_sms.plugin import SmsConfig  # noqa: PLC0415

    for name, kind in (("email", EmailConfig), ("fax", FaxConfig), ("sms", SmsConfig)):
        assert config_table(kind) in (ROOT / "plugins" / name / "README.md").read_text()
    assert config_table(FtpConfig) in (ROOT / "plugins" / "ftp" / "README.md").read_text()
    upload = (ROOT / "plugins" / "http_upload" / "README.md").read_text()
    assert config_table(HttpUploadConfig) in upload
    assert config_table(DicomScpConfig) in scp
    assert config_table(DicomScuConfig) in scu
    assert config_table(DicomScuOptions) in scu


def test_conformance_statement_is_current() -> None:
    """docs/conformance.md is what `rso conformance` writes from the code's tables."""
    from rso.cli.conformance import write_conformance  # noqa: PLC0415

    text = write_conformance()
    assert (ROOT / "docs" / "conformance.md").read_text("utf-8") == text
    for said in ("| A700 |", "1.2.840.10008.5.1.4.1.1.2 |", "(0010,0020)", "B.12", "2762"):
        assert said in text
