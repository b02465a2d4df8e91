"""Where a target in an object store goes: refused or not, the temporary key beside it, and the step to its final name.

s3://b/out/model.pth    is uploaded as s3://b/out/.model.pth.isomorph-part, then copied inside the store, and the first removed
s3://b/out/             as s3://b/out/.isomorph-part/…, then copied file by file, an index last
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from isomorph.engine.places import WEIGHTS, human
from isomorph.errors import IsomorphError, RefusedError, printable
from isomorph.formats.base import OutputLayout
from isomorph.stores.base import Stat
from isomorph.stores.url import Url

PART = "isomorph-part"
OTHER_NAME = "Use --overwrite, or another name"


class RemotePlace:
    """A target, and the temporary keys under which it is uploaded."""

    def __init__(
        self,
        target: Url,
        layout: OutputLayout,
        sources: Iterable[Path],
        *,
        overwrite: bool,
        temporary: Url | None = None,
    ) -> None:
        """RefusedError where the target is its own source, or exists and is not to be overwritten.

        `temporary` is below the target, or beside it: other keys than the usual ones.
        """
        self.target, self.layout, self.overwrite = target, layout, overwrite
        self.sources = tuple(sources)
        self.store = target.store
        usual = target / f".{PART}" if layout.is_folder else target.parent / f".{target.name}.{PART}"
        self.temporary = usual if temporary is None else temporary
        self._uploaded: dict[str, Stat] = {}
        self.check()

    @property
    def finals(self) -> tuple[Url, ...]:
        """The objects that will be there at the end."""
        if not self.layout.is_folder:
            return (self.target,)
        return tuple(self.target / file.name for file in self.layout.files)

    @property
    def temporaries(self) -> tuple[Url, ...]:
        if not self.layout.is_folder:
            return (self.temporary,)
        return tuple(self.temporary / file.name for file in self.layout.files)

    def check(self) -> None:
        """Refuse what must not be written. Touches nothing."""
        if not self.store.writes:
            raise self.store.read_only(self.target)
        if not self.target.key and not self.layout.is_folder:
            raise RefusedError(self.target, "is a bucket, not an object", "Give the name of a file in it")
        for final in self.finals:
            if any(final == source for source in self.sources):
                raise RefusedError(final, "is the source; not touched", "Give another name")
        self.store.forget()
        if self.layout.is_folder:
            self._check_folder()
        elif not self.overwrite:
            found = self.store.stat(self.target)
            if found is not None:
                raise RefusedError(self.target, f"exists ({human(found.nbytes)}); not touched", OTHER_NAME)

    def _check_folder(self) -> None:
        mine = {f".{PART}", self.temporary.relative_to(self.target).parts[0]}
        names = [entry.name for entry in self.store.entries(self.target) if entry.name not in mine]
        ours = {file.name for file in self.layout.files}
        if names and not self.overwrite:
            there = [name for name in names if name in ours]
            what = f"holds {printable(there[0])} already" if there else "is not empty"
            raise RefusedError(self.target, f"{what}; not touched", OTHER_NAME)
        stale = [name for name in names if name not in ours and _is_weights(name)]
        if stale:
            raise RefusedError(
                self.target,
                f"holds {', '.join(map(printable, stale[:5]))}{' …' if len(stale) > 5 else ''}, which would stay beside the new "
                "files: a folder of two checkpoints; not touched",
                "Remove what is old, or give another folder",
            )

    def uploaded(self, temporary: Url) -> None:
        """Note the version that was uploaded: only that one gets the final name."""
        found = self.store.stat(temporary)
        if found is None:
            raise RefusedError(temporary, "was removed while it was written", "Run it again")
        self._uploaded[str(temporary)] = found

    def finish(self) -> None:
        """Copy what was uploaded to its final name, inside the store, and remove the temporary keys.

        RefusedError where something has taken the name meanwhile, or the temporary key is another version now; names that were
        given by then are taken back.
        """
        pairs = list(zip(self.temporaries, self.finals, strict=True))
        if self.layout.is_folder:
            ours = set(self.temporaries)
            beside = [url for url in self.temporary.iterdir() if url not in ours]  # what the caller put with them
            pairs = [(url, self.target / url.name) for url in beside] + pairs
        given: list[Url] = []
        try:
            for temporary, final in pairs:
                stat = self._uploaded.get(str(temporary)) or self.store.stat(temporary)
                if stat is None:
                    raise RefusedError(temporary, "was removed while it was written", "Run it again")
                self.store.copy(temporary, stat, final, replace=self.overwrite)
                given.append(final)
        except BaseException:
            if not self.overwrite:
                for final in given:
                    self.store.remove(final)
            raise
        self.remove_temporary()

    def remove_temporary(self) -> None:
        """Remove what lies under the temporary keys; only ever what is ours by name."""
        self.store.forget()
        with contextlib.suppress(IsomorphError):
            left = list(self.temporary.iterdir()) if self.layout.is_folder else [self.temporary]
            for url in left:
                with contextlib.suppress(IsomorphError):
                    self.store.remove(url)
        self.store.forget()


def _is_weights(name: str) -> bool:
    return PurePosixPath(name).suffix in WEIGHTS or name.endswith(".index.json")
