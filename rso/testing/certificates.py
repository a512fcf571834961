"""Certificates for tests of TLS, made by OpenSSL's program as a deployer would."""

import subprocess
from pathlib import Path

__all__ = ["make_certificate"]


def make_certificate(
    folder: Path, name: str, *, days: int = 90, issuer: tuple[Path, Path] | None = None
) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key as PEM files; signed by itself without an issuer."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    signer: list[str | Path] = ["-CA", issuer[0], "-CAkey", issuer[1]] if issuer else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", str(days), "-subj", f"/CN={name}", *signer,
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
