"""buildah with a store of its own: nothing of the host's default storage, registries or policies is used.

Folder ``builder/store/``: ``root`` (images), ``run`` (locks and mount counts, worthless after a crash), ``scratch``
and the configuration files, written anew each time. Outside it buildah only keeps a cache of layer digests, in
``/var/lib/containers/cache``, for which it has no switch; it can be deleted.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from nanocloud.errors import CommandError
from nanocloud.files import private_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Protocol

    class Run(Protocol):
        def __call__(
            self, argv: Sequence[str], *, environment: Mapping[str, str], on_line: Callable[[str], None] = ...
        ) -> str: ...


DRIVERS = ("overlay", "vfs")
"""In order of preference. overlay cannot stand on overlay: a builder inside a container falls back to copying."""
BUILD_OPTIONS = ("--isolation=chroot", "--network=host", "--format=oci", "--layers=false", "--identity-label=false")
PUSH_OPTIONS = ("--format=oci", "--compression-format=zstd", "--compression-level=3")


class Buildah:
    """Call ``open`` first. One user at a time: the builder's lock."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder, self._run = folder, run
        self.scratch = folder / "scratch"
        """Temporary files on the filesystem of the store; emptied by ``open``."""

    def open(self) -> None:
        """Make the store usable, whatever state a crash has left it in.

        Raises:
            CommandError: buildah cannot use any storage driver here.
        """
        private_folder(self._folder)
        for name in ("scratch", "run"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
            private_folder(self._folder / name)
        write_durably(self._folder / "policy.json", b'{"default":[{"type":"insecureAcceptAnything"}]}')
        write_durably(
            self._folder / "registries.conf", b'unqualified-search-registries = []\nshort-name-mode = "disabled"\n'
        )
        for driver in self._drivers():
            self._configure(driver)
            try:
                self._buildah("rm", "--all")
                self._buildah("rmi", "--prune", "--force")
            except CommandError:
                # A store that cannot be read is worth nothing: the base is made anew.
                shutil.rmtree(self._folder / "root", ignore_errors=True)
                continue
            return
        self._configure(DRIVERS[-1])
        self._buildah("rm", "--all")

    def has(self, tag: str) -> bool:
        try:
            self._buildah("inspect", "--type=image", "--format={{.FromImageID}}", tag)
        except CommandError:
            return False
        return True

    def build(
        self,
        context: Path,
        *,
        tag: str,
        timestamp: int,
        labels: Mapping[str, str] | None = None,
        contexts: Mapping[str, Path] | None = None,
        mounts: Sequence[tuple[Path, str, str]] = (),
        on_line: Callable[[str], None] = lambda line: None,
    ) -> str:
        """Build the Containerfile in ``context`` and return the image's id (the digest of its configuration).

        Args:
            contexts: folders that ``COPY --from=<name>`` takes files from.
            mounts: host path, path in RUN steps, ``ro`` or ``rw``; nothing of them stays in the image.
        """
        id_file = self.scratch / "image-id"
        id_file.unlink(missing_ok=True)
        self._buildah(
            *("build", *BUILD_OPTIONS, "--pull=never", f"--timestamp={timestamp}", f"--iidfile={id_file}"),
            *(f"--label={name}={value}" for name, value in (labels or {}).items()),
            *(f"--build-context={name}={folder}" for name, folder in (contexts or {}).items()),
            *(f"--volume={source}:{target}:{mode}" for source, target, mode in mounts),
            *(f"--tag={tag}", f"--file={context / 'Containerfile'}", str(context)),
            on_line=on_line,
        )
        return id_file.read_text().strip()

    def export(self, tag: str, layout: Path) -> None:
        """Write the image as the only one into a new OCI layout folder."""
        shutil.rmtree(layout, ignore_errors=True)
        self._buildah("push", *PUSH_OPTIONS, "--quiet", tag, f"oci:{layout}:image")

    def remove(self, tag: str) -> None:
        self._buildah("rmi", tag)

    def _drivers(self) -> Sequence[str]:
        used = [driver for driver in DRIVERS if (self._folder / "root" / driver).exists()]
        return (*used, *(driver for driver in DRIVERS if driver not in used))

    def _configure(self, driver: str) -> None:
        root, run = self._folder / "root", self._folder / "run"
        text = f'[storage]\ndriver = "{driver}"\ngraphroot = "{root}"\nrunroot = "{run}"\n'
        write_durably(self._folder / "storage.conf", text.encode())

    def _buildah(self, *arguments: str, on_line: Callable[[str], None] = lambda line: None) -> str:
        environment = {
            "CONTAINERS_STORAGE_CONF": str(self._folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self._folder / "registries.conf"),
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
        }
        command, *rest = arguments
        policy = (f"--signature-policy={self._folder / 'policy.json'}",) if command in ("build", "push") else ()
        return self._run(("buildah", command, *policy, *rest), environment=environment, on_line=on_line)
