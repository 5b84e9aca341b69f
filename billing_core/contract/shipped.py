"""Files that travel with the house: the documented settings, starter catalogs, samples.

In a checkout they stand in `config/` beside this package; in an installed wheel they travel inside it.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_ROOT = next(path for path in (_PACKAGE / "_config", _PACKAGE.parent / "config") if path.is_dir())


def shipped(name: str) -> Path:
    """The path of a shipped file or folder, such as `catalogs/language_model.toml`.

    Raises: FileNotFoundError where nothing of that name is shipped.
    """
    path = _ROOT / name
    if not path.exists():
        raise FileNotFoundError(name)
    return path
