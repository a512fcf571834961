"""The section ``[plugins.ftp]``."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from rso.plugins import ConfigError

__all__ = ["FtpConfig", "passive_range"]


class FtpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.ftp]``."""

    host: Annotated[str, Meta(description="address to listen on")] = "0.0.0.0"  # noqa: S104
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on")] = 21
    tls: Annotated[
        Literal["required", "off"],
        Meta(description='TLS on control and data connections; "off" only inside a private net'),
    ] = "required"
    certificate: Annotated[
        str, Meta(description="PEM file of the certificate chain; empty: RSO signs its own")
    ] = ""
    key: Annotated[str, Meta(description="PEM file of its key")] = ""
    passive_ports: Annotated[
        str | tuple[int, int],
        Meta(description='ports of passive data connections, "50000-50099"; empty: any'),
    ] = ""
    masquerade_address: Annotated[
        str, Meta(description="public address told to passive clients behind NAT")
    ] = ""
    connections: Annotated[int, Meta(ge=1, description="control connections at once")] = 200
    per_address: Annotated[int, Meta(ge=1, description="of them from one address")] = 50
    sign_in_seconds: Annotated[
        int, Meta(ge=1, description="a connection that has not signed in by then is ended")
    ] = 20
    idle_seconds: Annotated[int, Meta(ge=1, description="an idle connection is ended")] = 300
    bytes_per_second: Annotated[
        int, Meta(ge=0, description="limit of one data connection; 0: none")
    ] = 0
    expire_hours: Annotated[
        float, Meta(gt=0, description="an incomplete file waits so long for its resume")
    ] = 24.0
    most_bytes: Annotated[int, Meta(ge=1, description="bytes of one file")] = 64 << 30
    open_files: Annotated[
        int, Meta(ge=1, description="incomplete files that wait, of one account")
    ] = 100
    open_bytes: Annotated[int, Meta(ge=1, description="bytes of these, together")] = 128 << 30


def passive_range(config: FtpConfig) -> range | None:
    """The ports of passive data connections; ``None`` for any.

    Raises:
        ConfigError: They are not written as ``50000-50099``.
    """
    if not config.passive_ports:
        return None
    ports = config.passive_ports
    first, last = ports if isinstance(ports, tuple) else (ports.split("-") * 2)[:2]
    try:
        found = range(int(first), int(last) + 1)
    except ValueError:
        found = range(0)
    if not found or found[0] < 1 or found[-1] > 65535:
        raise ConfigError('write them as "50000-50099" - at `$.plugins.ftp.passive_ports`')
    return found
