"""Damaged image files: which ones there are, refused or left out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from uuid import uuid4

from pydantic import Field

from lotteryfw import DataError, files_fingerprint
from lotteryfw.std.image_files import (
    DamagedFile,
    Image,
    ImageList,
    UnknownRange,
    decoded,
    folder_times,
    refuse_empty,
    scan,
)

Damaged = Annotated[
    Literal["refuse", "skip"],
    Field(
        description="refuse: nothing is trained on a folder with files that cannot be decoded; "
        "skip: these are left out, and a warning names them."
    ),
]
SHOWN = 5
"""Damaged files that a message names."""
WORTH_KEEPING = 2.0
"""Seconds. Decoding all images again for less costs no more than keeping the result."""
_AT_ONCE = 1000
"""Images that are handed to the threads at once."""
_REPORT_SECONDS = 30.0


class Damage(NamedTuple):
    """A damaged file: its name, relative to the folder, and the decoder's reason."""

    name: str
    reason: str


def sound_images(use: str, root: Path, test: str) -> tuple[ImageList, tuple[Damage, ...]]:
    """Return the images that can be decoded, and the damaged ones.

    All files are decoded for that, once for each state of the folder: the result is kept in the
    user's cache folder.
    """
    halves = (root / "train", root / test)
    listed = scan(use, root, test)
    damages = _damages(use, root, test, tuple(map(folder_times, halves)))
    names = {damage.name for damage in damages}

    def without_damaged(images: Sequence[Image]) -> tuple[Image, ...]:
        return tuple(image for image in images if _name(image, root) not in names)

    if not damages:
        return listed, ()
    train, test_images = map(without_damaged, (listed.train, listed.test))
    refuse_empty(use, halves[0], listed.classes, train)
    refuse_empty(use, halves[1], listed.classes, test_images)
    return ImageList(listed.classes, train, test_images), damages


def refuse_damaged(use: str, root: Path, damages: Sequence[Damage]) -> None:
    """Raise DataError where there are damaged files, with their names."""
    if damages:
        raise DataError(
            f'{use}: {_described(root, damages)}; replace or remove them, or set damaged = "skip"'
        )


def skipped(use: str, root: Path, damages: Sequence[Damage]) -> list[str]:
    """Return the warning that damaged files are left out; none where there are none."""
    if not damages:
        return []
    return [f"data '{use}': {_described(root, damages)}; they are left out"]


def _described(root: Path, damages: Sequence[Damage]) -> str:
    shown = ", ".join(f"{name} ({reason})" for name, reason in damages[:SHOWN])
    more = ", …" if len(damages) > SHOWN else ""
    files = "1 file" if len(damages) == 1 else f"{len(damages):,} files"
    return f"{files} in {root} cannot be decoded: {shown}{more}"


@lru_cache(maxsize=8)
def _damages(
    use: str, root: Path, test: str, times: tuple[tuple[int, ...], ...]
) -> tuple[Damage, ...]:
    """Return the damaged files. `times` tell apart the states of the folder in one process."""
    listed = scan(use, root, test)
    images = (*listed.train, *listed.test)
    fingerprint = files_fingerprint([image.path for image in images], root)
    kept = _cache_folder() / f"{sha256(fingerprint.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        # absent or unusable: the images are decoded
        return tuple(
            Damage(str(name), str(reason)) for name, reason in json.loads(kept.read_text("utf-8"))
        )
    started = time.monotonic()
    damages = _decode_all(use, root, images)
    if time.monotonic() - started >= WORTH_KEEPING:
        _keep(kept, damages)
    return damages


def _decode_all(use: str, root: Path, images: Sequence[Image]) -> tuple[Damage, ...]:
    def damage(image: Image) -> Damage | None:
        try:
            decoded(image.path, "RGB")
        except DamagedFile as error:
            # a decoder's message has the path, which the name says better
            reason = str(error).replace(repr(str(image.path)), "it")
            return Damage(_name(image, root), reason)
        except UnknownRange:
            # sound, and refused when it is read
            return None
        return None

    damages: list[Damage] = []
    reported = time.monotonic()
    # decoders release the interpreter's lock
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(images), _AT_ONCE):
            for result in threads.map(damage, images[start : start + _AT_ONCE]):
                if result is not None:
                    damages.append(result)
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                checked = f"{start + _AT_ONCE:,} of {len(images):,} images"
                print(f"data '{use}': {checked} looked at for damage", file=sys.stderr)
    return tuple(damages)


def _keep(path: Path, damages: Sequence[Damage]) -> None:
    """Write the result; where that fails, the images are decoded again the next time."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # a rename is atomic: a reader sees all of it or nothing
        aside.write_text(json.dumps(damages), "utf-8")
        aside.replace(path)


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("lotteryfw") / "images"


def _name(image: Image, root: Path) -> str:
    return image.path.relative_to(root).as_posix()
