"""Builds catalogue images: recipe and base in, one image in the node's layout out. A second build does nothing.

Folder ``state_dir/images/builder/``: ``lock``, ``base.json`` (see base.py), ``store/`` (see buildah.py), ``apt/`` and
``registries/`` (the host's settings), ``cache/`` (downloaded packages), ``artifacts/`` (see artifacts.py). All of it
can be deleted at any time but during a build.

An image is up to date when its recipe key is: SHA-256 over the recipe's files and labels, the base's digest and the
builder's options. One build runs at a time; the others wait for the lock. Synchronous, for the command line only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import attrs

from nanocloud.errors import CommandError, ForbiddenError, ProviderError
from nanocloud.files import private_folder
from nanocloud_dockyard import (
    artifacts,
    base,
    build_process,
    buildah,
    host_apt,
    host_registries,
    layout_writer,
    recipes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nanocloud_dockyard.layout_writer import Published
    from nanocloud_dockyard.recipes import Recipe

_TOOLS = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
_STEP = re.compile(r"(\[\d+/\d+\] )?STEP (\d+/\d+): ((?:RUN|COPY|ADD) .+)")  # the others take no time


class Progress(Protocol):
    def __call__(self, subject: str, message: str) -> None:
        """One line for the user: which service (or the base), and what is being done."""


@attrs.frozen(kw_only=True)
class BuildResult:
    image: Published
    built: bool
    """False: the image was up to date and nothing was done."""
    seconds: float


class BuildError(ProviderError):
    """A step of a build failed; ``tail`` holds the last lines of the builder's output."""

    def __init__(self, message: str, *, hint: str, tail: str) -> None:
        super().__init__(message, hint=hint)
        self.tail = tail


class Builder:
    def __init__(self, state_dir: Path, *, catalog: Path = recipes.CATALOG, progress: Progress) -> None:
        self._catalog, self._progress = catalog, progress
        state_dir = state_dir.absolute()  # buildah takes no other, and would seem to have lost its store
        self._logs = state_dir / "logs" / "dockyard"
        self._folder = state_dir / "images" / "builder"
        self.layout = state_dir / "images" / "layout"

    def build(
        self,
        service: str,
        *,
        rebuild_base: bool = False,
        force: bool = False,
        arguments: Mapping[str, str] | None = None,
    ) -> BuildResult:
        """Bring the image of ``service`` up to date.

        Args:
            rebuild_base: make the base anew first, with the newest packages; all recipes then differ from their images.
            force: build although nothing changed, with the newest packages.
            arguments: for an artifact's argument: a URL or a local file to take it from.

        Raises:
            NotFoundError, InvalidError: no such recipe, or a broken one.
            ForbiddenError: not root. ProviderError: a tool is missing.
            ImageError: a file that the recipe fetches cannot be had. BuildError: the builder failed.
        """
        started = time.monotonic()
        recipe = recipes.load(service, self._catalog)
        if not rebuild_base and not force and (image := self._up_to_date(recipe)):
            return BuildResult(image=image, built=False, seconds=time.monotonic() - started)
        self._check_host()
        with self._locked(service) as lock:
            # Somebody else may have built it while this process waited.
            if not rebuild_base and not force and (image := self._up_to_date(recipe)):
                return BuildResult(image=image, built=False, seconds=time.monotonic() - started)
            image = self._build(recipe, lock, rebuild_base=rebuild_base, arguments=arguments or {})
        return BuildResult(image=image, built=True, seconds=time.monotonic() - started)

    def images(self) -> dict[str, Published]:
        """What is built, by service."""
        return layout_writer.published(self.layout)

    def _up_to_date(self, recipe: Recipe) -> Published | None:
        record = base.current(self._folder)
        image = self.images().get(recipe.service)
        return image if record and image and image.recipe == _key(recipe, record) else None

    def _build(self, recipe: Recipe, lock: int, *, rebuild_base: bool, arguments: Mapping[str, str]) -> Published:
        service = recipe.service
        private_folder(self._folder)
        builder = buildah.Buildah(self._folder / "store", self._runner(service, lock))
        with self._explained(service, service):
            builder.open()
            apt = host_apt.capture(self._folder / "apt", base.SUITE)
            registries = host_registries.capture(self._folder / "registries", epoch=base.EPOCH)
        files = artifacts.provide(
            recipe,
            self._folder / "artifacts",
            builder.scratch / "artifacts",
            arguments=arguments,
            progress=partial(self._progress, service),
        )
        record = None if rebuild_base else base.current(self._folder)
        if record is None or not builder.has(base.REFERENCE):
            record = self._make_base(lock, apt)
        tag = f"nanocloud-build/{service}"
        with self._explained(service, service):
            builder.build(
                recipe.folder,
                tag=tag,
                timestamp=base.EPOCH,
                labels=recipe.labels,
                contexts={"artifacts": files} if files else {},
                mounts=[*self._mounts(apt), *registries.mounts(self._folder / "cache" / "registries")],
                on_line=partial(self._show_step, service),
            )
            self._progress(service, "storing")
            staged = builder.scratch / "image"
            builder.export(tag, staged)
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            image = layout_writer.publish(self.layout, staged, service, recipe=_key(recipe, record), created=created)
            builder.remove(tag)
            shutil.rmtree(staged)
        return image

    def _make_base(self, lock: int, apt: host_apt.HostApt) -> base.BaseRecord:
        run = self._runner("base", lock)
        artifacts.collect(self._folder / "artifacts")
        shutil.rmtree(self._folder / "cache", ignore_errors=True)  # else it would keep every version there ever was
        with self._explained("base", base.REFERENCE):
            return base.make(
                self._folder,
                buildah.Buildah(self._folder / "store", run),
                apt,
                run,
                partial(self._progress, base.REFERENCE),
            )

    def _mounts(self, apt: host_apt.HostApt) -> list[tuple[Path, str, str]]:
        """The host's way to packages, read-only, and what apt downloads: kept for the next build, in no layer."""
        mounts = [(source, target, "ro") for source, target in apt.mounts(base.sources(self._folder, apt))]
        for name, target in (("packages", "/var/cache/apt"), ("indexes", "/var/lib/apt/lists")):
            cache = self._folder / "cache" / name
            cache.mkdir(parents=True, exist_ok=True)  # 0755: apt downloads as its own user
            mounts.append((cache, target, "rw"))
        return mounts

    def _show_step(self, service: str, line: str) -> None:
        if match := _STEP.match(line):
            text = f"{match[1] or ''}step {match[2]}: {' '.join(match[3].split())}"
            self._progress(service, text if len(text) <= 100 else text[:97] + "...")

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _runner(self, name: str, lock: int) -> buildah.Run:
        private_folder(self._logs)
        log = self._log(name)
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
        return partial(build_process.run, log=log, lock=lock)

    @contextmanager
    def _explained(self, name: str, subject: str) -> Iterator[None]:
        """Turn a program's failure into one that names the service and the log."""
        try:
            yield
        except CommandError as exc:
            last = exc.stderr.strip().splitlines()[-1:] or ["no output"]
            raise BuildError(
                f"{subject}: {' '.join(exc.argv[:2])} exited with {exc.exit_code}: {last[0][:200]}",
                hint=f"the builder's output is in {self._log(name)}",
                tail=exc.stderr,
            ) from exc

    def _check_host(self) -> None:
        if os.geteuid() != 0:
            raise ForbiddenError("building images needs root", hint="run the command again with sudo")
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            packages = sorted({_TOOLS[tool] for tool in missing})
            raise ProviderError(
                f"building images needs {', '.join(missing)}, which this host does not have",
                hint=f"install the Debian packages: apt-get install {' '.join(packages)}",
            )

    @contextmanager
    def _locked(self, service: str) -> Iterator[int]:
        """Hold the build lock; the programs of a build inherit it."""
        private_folder(self._folder)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress(service, "waiting for another build to end")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _key(recipe: Recipe, record: base.BaseRecord) -> str:
    labels = "\0".join(f"{name}={value}" for name, value in sorted(recipe.labels.items()))
    parts = (recipe.digest, labels, record.digest, str(base.EPOCH), *buildah.BUILD_OPTIONS, *buildah.PUSH_OPTIONS)
    return "sha256:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()
