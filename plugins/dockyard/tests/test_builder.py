"""The builder over programs that only pretend: when it builds, what it tells them, and what a crash leaves.

``buildah``, ``mmdebstrap`` and apt are shell scripts in front of PATH; namespaces, locks and the layout are real.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nanocloud.errors import ForbiddenError, ImageError, ProviderError
from nanocloud_dockyard import base, recipes
from nanocloud_dockyard.builder import Builder, BuildError, BuildResult

pytestmark = pytest.mark.root

BUILDAH = """#!/bin/sh
here=${0%/*}
driver=$(sed -n 's/^driver = "\\(.*\\)"/\\1/p' "$CONTAINERS_STORAGE_CONF")
echo "$driver $*" >> "$here/calls"
command=$1
case $command in
    rm | rmi) [ ! -e "$here/broken-$driver" ] ;;
    inspect) [ -e "$here/has-base" ] ;;
    build)
        echo 'STEP 1/2: FROM nanocloud/debian:12'
        echo 'STEP 2/2: RUN  make   it'
        if [ -e "$here/stages" ]; then echo '[2/2] STEP 1/9: COPY --from=build it .'; fi
        if [ -e "$here/hang" ]; then echo x > "$here/hang"; exec sleep 1000; fi
        if [ -e "$here/fail" ]; then cat "$here/fail"; exit 7; fi
        for argument; do
            case $argument in
                --iidfile=*) echo sha256:feed > "${argument#*=}" ;;
                --tag=nanocloud/debian:12) touch "$here/has-base" ;;
            esac
        done ;;
    push)
        for target; do :; done
        target=${target#oci:}
        cp -r "$here/image" "${target%:image}" ;;
esac
"""
MMDEBSTRAP = """#!/bin/sh
here=${0%/*}
echo "mmdebstrap $*" >> "$here/calls"
"""


class Host:
    """The programs, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.state, self.catalog = folder / "bin", folder / "state", folder / "catalog"
        self.told: list[str] = []
        self.bin.mkdir()
        for name, text in (("buildah", BUILDAH), ("mmdebstrap", MMDEBSTRAP), ("apt-get", "#!/bin/sh\n")):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        shutil.copy(self.bin / "apt-get", self.bin / "apt-config")
        (self.bin / "apt-get").write_text(
            "#!/bin/sh\necho 'http://deb.example/debian/ bookworm main Debian $(SIGNED_BY) $(TRUSTED)'\n"
        )
        shutil.copytree(recipes.CATALOG / "redis", self.catalog / "redis")
        self._image()

    def build(
        self,
        service: str = "redis",
        *,
        rebuild_base: bool = False,
        force: bool = False,
        arguments: dict[str, str] | None = None,
    ) -> BuildResult:
        builder = Builder(
            self.state, catalog=self.catalog, progress=lambda who, what: self.told.append(f"{who}: {what}")
        )
        return builder.build(service, rebuild_base=rebuild_base, force=force, arguments=arguments)

    def calls(self) -> list[str]:
        """What was asked since the last question: ``<driver> <arguments>``."""
        file = self.bin / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def verbs(self) -> list[str]:
        return [line.split()[0 if line.startswith("mmdebstrap") else 1] for line in self.calls()]

    @property
    def folder(self) -> Path:
        return self.state / "images" / "builder"

    def _image(self) -> None:
        from hashlib import sha256

        blobs = self.bin / "image" / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def blob(content: str) -> str:
            digest = sha256(content.encode()).hexdigest()
            (blobs / digest).write_text(content)
            return f'{{"digest": "sha256:{digest}", "size": {len(content)}}}'

        manifest = blob(f'{{"config": {blob("{}")}, "layers": [{blob("layer")}]}}')
        (self.bin / "image" / "index.json").write_text(f'{{"schemaVersion": 2, "manifests": [{manifest}]}}')


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


def test_a_build_of_two_stages_tells_its_steps(host: Host) -> None:
    (host.bin / "stages").touch()
    host.build()
    assert "redis: [2/2] step 1/9: COPY --from=build it ." in host.told


def test_a_first_build_makes_the_base_and_a_second_does_nothing(host: Host) -> None:
    first = host.build()
    assert first.built
    assert host.verbs() == ["rm", "rmi", "mmdebstrap", "build", "build", "push", "rmi"]
    assert host.told == [
        "nanocloud/debian:12: installing Debian bookworm (mmdebstrap)",
        "nanocloud/debian:12: importing nanocloud/debian:12",
        "redis: step 2/2: RUN make it",
        "redis: storing",
    ]
    second = host.build()
    assert not second.built
    assert second.image == first.image
    assert host.calls() == []
    assert (host.state / "logs" / "dockyard" / "redis.log").stat().st_mode & 0o777 == 0o600


def test_a_relative_folder_reaches_the_builder_as_an_absolute_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(host.state.parent)
    host.state = Path("state")
    host.build()
    (pushed,) = [line for line in host.calls() if " push " in line]
    assert pushed.split()[-1].startswith(f"oci:{Path.cwd()}/state/")


def test_labels_and_the_hosts_apt_reach_the_build_and_its_sources_do_not_reach_argv(host: Host) -> None:
    host.build()
    (call,) = (line for line in host.calls() if "--tag=nanocloud-build/redis" in line)
    for name, value in recipes.load("redis").labels.items():
        assert f"--label={name}={value}" in call
    for target in ("/etc/apt/sources.list:ro", "/var/cache/apt:rw", "/etc/apt/apt.conf.d/99nanocloud-host:ro"):
        assert target in call
    assert "--pull=never" in call
    assert "deb.example" not in call


def test_files_of_a_recipe_are_there_before_anything_is_built_and_outlive_the_base(host: Host) -> None:
    content = b"a program"
    sha256 = hashlib.sha256(content).hexdigest()
    recipe = host.catalog / "redis" / "recipe.toml"
    table = (
        f'[[artifact]]\nfile = "tool"\nurl = "https://nowhere.invalid/tool"\nsha256 = "{sha256}"\nargument = "TOOL"\n'
    )
    recipe.write_text(recipe.read_text() + table)
    with pytest.raises(ImageError, match=r"redis: https://nowhere.invalid/tool cannot be fetched"):
        host.build()
    assert host.verbs() == ["rm", "rmi"]
    (host.state / "tool").write_bytes(content)
    assert host.build(arguments={"TOOL": str(host.state / "tool")}).built
    (call,) = (line for line in host.calls() if "--tag=nanocloud-build/redis" in line)
    assert f"--build-context=artifacts={host.folder}/store/scratch/artifacts" in call
    assert (host.folder / "store/scratch/artifacts/tool").read_bytes() == content
    (host.state / "tool").unlink()
    (host.folder / "artifacts" / "old").touch()
    os.utime(host.folder / "artifacts" / "old", (0, 0))
    assert not host.build().built
    assert host.build(rebuild_base=True).built
    assert [path.name for path in (host.folder / "artifacts").iterdir()] == [sha256]


def test_what_changes_a_build(host: Host) -> None:
    host.build()
    host.calls()
    (host.catalog / "redis" / "redis.conf").write_text("changed")
    assert host.build().built
    assert host.verbs() == ["rm", "rmi", "inspect", "build", "push", "rmi"]
    assert host.build(force=True).built
    host.calls()
    assert host.build(rebuild_base=True).built
    assert "mmdebstrap" in host.verbs()
    assert not host.build().built


def test_a_base_of_another_definition_is_made_anew(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.build()
    host.calls()
    monkeypatch.setattr(base, "EPOCH", base.EPOCH + 1)
    assert host.build().built
    assert "mmdebstrap" in host.verbs()


def test_a_base_that_is_gone_from_the_store_is_made_anew(host: Host) -> None:
    host.build()
    host.calls()
    (host.bin / "has-base").unlink()
    assert host.build(force=True).built
    assert "mmdebstrap" in host.verbs()


def test_a_failure_names_the_step_and_the_log_and_leaves_the_old_image(host: Host) -> None:
    old = host.build().image
    (host.bin / "fail").write_text("E: Unable to locate package nonesuch\n")
    (host.catalog / "redis" / "redis.conf").write_text("changed")
    with pytest.raises(BuildError) as caught:
        host.build()
    assert str(caught.value) == "redis: buildah build exited with 7: E: Unable to locate package nonesuch"
    assert caught.value.hint == f"the builder's output is in {host.state / 'logs' / 'dockyard' / 'redis.log'}"
    assert caught.value.tail.splitlines()[-2:] == ["STEP 2/2: RUN  make   it", "E: Unable to locate package nonesuch"]
    assert Builder(host.state, progress=lambda who, what: None).images() == {"redis": old}
    (host.bin / "fail").unlink()
    assert host.build().built


def test_overlay_that_cannot_be_used_gives_way_to_vfs(host: Host) -> None:
    (host.bin / "broken-overlay").touch()
    assert host.build().built
    assert {line.split()[0] for line in host.calls() if " build " in line} == {"vfs"}


def test_a_store_that_no_driver_can_use_is_an_error(host: Host) -> None:
    for driver in ("overlay", "vfs"):
        (host.bin / f"broken-{driver}").touch()
    with pytest.raises(BuildError, match="redis: buildah rm exited with 1"):
        host.build()


def test_builds_wait_for_one_another(host: Host) -> None:
    host.folder.mkdir(parents=True)
    waiting = threading.Event()
    results = []

    def tell(subject: str, message: str) -> None:
        if message == "waiting for another build to end":
            waiting.set()

    def build() -> None:
        results.append(Builder(host.state, catalog=host.catalog, progress=tell).build("redis"))

    with (host.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=build)
        thread.start()
        assert waiting.wait(30)
        assert host.calls() == []
    thread.join(60)
    assert [result.built for result in results] == [True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_takes_its_programs_along_and_the_next_one_heals(host: Host, number: int) -> None:
    os.mkfifo(host.bin / "hang")
    script = (  # as from a shell, also where the tests were started with SIGINT ignored
        "import signal, sys, pathlib; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from nanocloud_dockyard.builder import Builder;"
        "Builder(pathlib.Path(sys.argv[1]), catalog=pathlib.Path(sys.argv[2]), progress=print).build('redis')"
    )
    with subprocess.Popen((sys.executable, "-c", script, host.state, host.catalog), stderr=subprocess.PIPE) as process:
        try:
            with (host.bin / "hang").open() as fifo:
                assert fifo.read() == "x\n"  # buildah is in the middle of it
            process.send_signal(number)
            assert process.wait(30) == -number
        finally:
            process.kill()
    with (host.folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # every program of the build inherited it: now all are dead
    (host.bin / "hang").unlink()
    assert host.build().built


def test_without_the_tools_the_error_names_the_packages(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host.bin))
    (host.bin / "buildah").unlink()
    with pytest.raises(ProviderError) as caught:
        host.build()
    assert str(caught.value) == "building images needs buildah, setpriv, unshare, which this host does not have"
    assert caught.value.hint == "install the Debian packages: apt-get install buildah util-linux"


def test_only_root_builds(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ForbiddenError, match="needs root"):
        host.build()
