"""Volumes and secrets of a run on this machine: directories and files beside its code.

There are no mounts here: a path is one in the working directory, and sizes, access modes and `read_only` are not enforced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mainstay.clusters.local.files import write_whole
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import safe_path
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.masking import masked_words, patterns_of
from mainstay.domain.secret import Handed, files_of
from mainstay.domain.volume import VolumeState
from mainstay.domain.workload import Volume

TRANSFER_SECONDS_MAX = 3_600.0
TRASH = ".removed"
"""Files of volumes that are gone; no tenant is called so."""


def require_possible(pod: str, volumes: Iterable[Volume]) -> None:
    """Raises Invalid for what this machine has not."""
    for volume in volumes:
        if volume.path.startswith("/"):
            msg = f"this machine runs processes, not containers: nothing can be mounted at {volume.path}"
            hint = f"`path: {volume.path.lstrip('/')}` is in the working directory, on every cluster"
            raise Invalid(msg, object_=pod, hint=hint)


def lay_out(volumes: Sequence[Volume], *, work: Path, claims: Path, owner: Owner) -> None:
    """Put volumes into a working directory in which nothing runs yet: scratch as a folder, a claim as a link to its own.

    Raises Invalid if a claim is not there and not to be made, or the code lies where a volume is to be.
    """
    for volume in volumes:
        place = work / volume.path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if volume.name:
                place.symlink_to(_claim(volume, claims / owner.tenant / owner.project))
            else:
                place.mkdir(mode=0o700)
        except (FileExistsError, NotADirectoryError) as error:
            msg = f"files of the code lie where a volume is mounted: {volume.path}"
            raise Invalid(msg, hint="choose another path for the volume") from error


def _claim(volume: Volume, folder: Path) -> Path:
    found = folder / volume.name
    if not found.is_dir():
        if not volume.size_bytes:
            here = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
            msg = f"there is no volume {volume.name} on this machine"
            raise Invalid(msg, hint=f"give it a `size` to have it made; there are: {', '.join(here) or 'none'}")
        found.mkdir(parents=True, exist_ok=True, mode=0o700)
    return found


def found(claims: Path) -> tuple[VolumeState, ...]:
    """Every claim there is, by its owner and name. How large they are nobody counts here."""
    return tuple(
        VolumeState(owner=Owner(tenant=tenant.name, project=project.name), name=claim.name)
        for tenant in _folders(claims)
        for project in _folders(tenant)
        for claim in _folders(project)
    )


def drop(claims: Path, owner: Owner, name: str) -> None:
    """Delete a claim with all that is in it; nothing happens if it is not there. It is gone at once, and its files after that."""
    folder = claims / owner.tenant / owner.project / name
    if not all(safe_path(part) and "/" not in part for part in (owner.tenant, owner.project, name)):
        msg = f"not the name of a volume: {name}"
        raise Invalid(msg, object_=name)
    trash = claims / TRASH
    trash.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(trash / secrets.token_hex(8))
    shutil.rmtree(trash, ignore_errors=True)


def _folders(where: Path) -> list[Path]:
    try:
        with os.scandir(where) as entries:
            here = sorted(
                entry.name for entry in entries if entry.name != TRASH and entry.is_dir(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [where / name for name in here]


async def transfer(direction: str, volumes: Iterable[Volume], handed: Sequence[Handed], *, work: Path) -> None:
    """Copy files `in` from object stores or `out` to them, by a process of its own. Raises Invalid with the store's words;
    Unavailable if what is to go out has to wait for a store that does not answer: it is nowhere else.
    """
    access = {one.use.name: one.value.decode(errors="replace") for one in handed}
    copies = [
        {"url": url, "path": str(work / volume.path), "access": access.get(volume.secret, "")}
        for volume in volumes
        if (url := volume.source if direction == "in" else volume.target)
    ]
    if not copies:
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "mainstay.transfer", direction),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath},
    )
    try:
        async with asyncio.timeout(TRANSFER_SECONDS_MAX):
            _, said = await process.communicate(json.dumps({"copies": copies}).encode() + b"\n")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = _said(said, handed)
        msg = f"files of an object store could not be copied: {words or 'no reason given'}"
        raise Unavailable(msg) if direction == "out" and process.returncode == os.EX_TEMPFAIL else Invalid(msg)


def hand_in(handed: Sequence[Handed], folder: Path) -> None:
    """Write secrets into a new folder that only their run reads."""
    files = files_of(handed)
    if files:
        folder.mkdir(mode=0o700)
    for name, content in files.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def hand_masks(handed: Sequence[Handed], made: Path) -> None:
    """What its keeper masks in the output of the run: beside its records, and only until it has read them."""
    if patterns := patterns_of(one.value for one in handed):
        write_whole(made / "masks.json", json.dumps([pattern.hex() for pattern in patterns]).encode())


def _said(said: bytes, handed: Sequence[Handed]) -> str:
    """The last words of a transfer, without a secret of it."""
    words = masked_words(said.decode(errors="replace"), (one.value for one in handed))
    return words.strip().rpartition("\n")[2]
