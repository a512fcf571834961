"""A PostgreSQL of one's own in a temporary folder, reached by a socket."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["find_postgres", "running_postgres"]

_SECONDS = 60.0  # to begin on a busy machine
# A shell keeps the server: told to end, by us or by the kernel when we were killed, it ends the
# server and takes the folder away.
_KEEPER = """
folder=$1 initdb=$2 postgres=$3 server= over=
trap 'over=1; test -z "$server" || kill -QUIT $server' TERM
if $initdb -D $folder/data -A trust -U postgres -E UTF8 >/dev/null && test -z "$over"; then
  $postgres -D $folder/data -c listen_addresses= -c unix_socket_directories=$folder -c fsync=off &
  server=$!
  test -z "$over" || kill -QUIT $server
  while kill -0 $server 2>/dev/null; do wait $server; done
fi
rm -rf $folder
"""


def find_postgres() -> Path | None:
    """The folder of the newest ``initdb``, if PostgreSQL is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def running_postgres(binaries: Path) -> Iterator[str]:
    """Its URL; without fsync, and gone with all its data in the end.

    It ends with the thread that began it too, however that ends: of a test run that is killed
    nothing stays.
    """
    folder = Path(tempfile.mkdtemp(prefix="rso-pg-"))
    # The death signal is forgotten where the account changes: setpriv does both in order.
    command: list[str | Path] = ["setpriv", "--pdeathsig", "TERM"]
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        command += ["--reuid", "postgres", "--regid", str(account.pw_gid), "--init-groups"]
    command += ["sh", "-c", _KEEPER, "sh", folder, binaries / "initdb", binaries / "postgres"]
    with tempfile.TemporaryFile() as log:
        keeper = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait(keeper, [binaries / "pg_isready", "-q", "-h", folder], log)
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            keeper.terminate()
            keeper.wait(_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)


def _wait(keeper: subprocess.Popen[bytes], ready: list[str | Path], log: IO[bytes]) -> None:
    """Until it takes connections.

    Raises:
        OSError: It does not; with the end of its log.
    """
    until = time.monotonic() + _SECONDS
    while subprocess.run(ready, check=False).returncode:
        if keeper.poll() is not None or time.monotonic() > until:
            log.seek(0)
            raise OSError(f"PostgreSQL did not start: {log.read()[-2000:].decode()}")
        time.sleep(0.05)
