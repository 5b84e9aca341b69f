"""Where embedded servers listen: unix sockets in a folder that only their owner may enter.

The kernel allows 107 bytes for the path of a socket. A data folder that lies too deep gets its sockets in a
folder of the system's temporary directory instead, named by a digest of the data folder, so that every start
finds the same one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from billing_core.errors import ConfigurationError

_LONGEST_SOCKET_PATH: Final = 107
_LONGEST_SOCKET_NAME: Final = len("/postgres/.s.PGSQL.5432.lock")


def socket_folder(data_folder: Path) -> Path:
    """Make and return the folder for sockets of the servers in this data folder.

    Raises: ConfigurationError when the folder exists and belongs to somebody else.
    """
    folder = data_folder.absolute() / "run"
    if len(os.fsencode(folder)) + _LONGEST_SOCKET_NAME > _LONGEST_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(data_folder.absolute())).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"tallygate-{os.geteuid()}-{digest}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise ConfigurationError(f"{folder} belongs to another user")
    folder.chmod(0o700)
    return folder
