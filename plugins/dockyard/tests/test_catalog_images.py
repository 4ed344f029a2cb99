"""The catalogue's images, built and run for real: without any capability, as their own user, on fresh volumes.

Set NANOCLOUD_TEST_STATE to a folder; what is missing there is built first, which downloads packages. A container here
is what the runtime also makes, from util-linux alone: overlay, own mount, process and network namespaces, /run that
only root may write. Everything hangs on the test's process and dies with it: the outer of two process namespaces
belongs to a process that stays root, for changing the user clears the signal that a parent's death sends.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from nanocloud_dockyard.builder import Builder
from nanocloud_dockyard.decompress import DigestedInput, LayerStream

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE = os.environ.get("NANOCLOUD_TEST_STATE")
pytestmark = [pytest.mark.root, pytest.mark.images]
BINDING_ENVIRONMENT = (
    "PATH=/usr/lib/nanocloud/bindings:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "HOME=/nonexistent",
)
UNPRIVILEGED = ("--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
MOUNTS = """
set -eu
root=$1 lower=$2 work=$3 volume=$4 target=$5 tls=$6 user=$7
shift 7
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mkdir -p "$root/run/nanocloud/tls"
mount --bind "$tls" "$root/run/nanocloud/tls"
echo "127.0.0.1 localhost mariadb.default.svc" > "$root/etc/hosts"
mount --bind "$volume" "$root$target"
exec unshare --pid --fork --root="$root" --mount-proc=/proc setpriv --reuid="${user%:*}" --regid="${user#*:}" {} -- "$@"
""".replace("{}", " ".join(UNPRIVILEGED))


class Box:
    """One running container."""

    def __init__(self, service: str, process: subprocess.Popen[bytes], log: Path, network: int, user: str) -> None:
        self.service, self.process, self.log, self._network, self._user = service, process, log, network, user

    def run(self, *argv: str, user: str = "", secret: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run one more process in the container; ``secret`` is a memory file behind /dev/fd/3."""
        uid, gid = (user or self._user).split(":")
        descriptors: tuple[int, ...] = ()
        given: tuple[str, ...] = ()
        with ExitStack() as stack:
            if secret is not None:
                descriptor = os.memfd_create("secret")
                stack.callback(os.close, descriptor)
                os.write(descriptor, secret)
                descriptors = (descriptor,)
                # 3 is only the other process's to give away: in this one somebody else may have it.
                given = ("sh", "-c", 'exec "$@" 3< "$0"', f"/dev/fd/{descriptor}")
            return subprocess.run(
                (
                    *given,
                    *("nsenter", f"--target={self._pid()}", "--mount", "--pid", "--net", "--root", "--wd"),
                    *("setpriv", f"--reuid={uid}", f"--regid={gid}", *UNPRIVILEGED, "--"),
                    *("env", "-i", *BINDING_ENVIRONMENT, *argv),
                ),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    def bind(self, *argv: str, secret: bytes | None = None) -> subprocess.CompletedProcess[str]:
        return self.run(*argv, user="65534:65534", secret=secret)

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.run("/usr/lib/nanocloud/ready.sh").returncode == 0:
                return
        raise AssertionError(f"{self.service} is not ready:\n{self.log.read_text()}")

    def fetch(self, url: str) -> tuple[int, str]:
        """Ask from the same network namespace, without following redirects."""
        script = (
            "import http.client, json, sys, urllib.parse as u; p = u.urlsplit(sys.argv[1]);"
            "c = http.client.HTTPConnection(p.netloc, timeout=60); c.request('GET', p.path or '/');"
            "r = c.getresponse(); print(json.dumps([r.status, r.read().decode()]))"
        )
        done = subprocess.run(
            ("nsenter", f"--net=/proc/{self._network}/ns/net", sys.executable, "-c", script, url),
            capture_output=True,
            check=True,
            timeout=90,
        )
        status, body = json.loads(done.stdout)
        return status, body

    def stop(self) -> int:
        subprocess.run(("kill", "-TERM", str(self._pid())), check=True)
        return self.process.wait(30)

    def kill(self) -> None:
        """As a power cut: nothing of the container is left when this returns."""
        descriptor = os.pidfd_open(self._pid())
        self.process.kill()
        self.process.wait()
        select.select([descriptor], [], [], 30)  # readable when the first process, and so its namespace, is gone
        os.close(descriptor)

    def _pid(self) -> int:
        """Of the container's first process: below the one that made the namespaces and the one that holds them."""
        pid = self.process.pid
        for _ in range(2):
            children = Path(f"/proc/{pid}/task/{pid}/children")
            while not (children.exists() and (found := children.read_text().split())):
                assert self.process.poll() is None, f"{self.service} ended:\n{self.log.read_text()}"
            pid = int(found[0])
        return pid


class Boxes:
    """The containers of one test; they share one network namespace."""

    def __init__(self, layout: Path, layers: Path, folder: Path, network: int, stack: ExitStack) -> None:
        self._layout, self._layers, self._folder, self._network, self._stack = layout, layers, folder, network, stack
        authority = trustme.CA()
        self.tls = folder / "tls"
        self.tls.mkdir()
        certificate = authority.issue_cert("mariadb.default.svc", "redis.default.svc", "localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self.tls / "ca.crt")
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        (self.tls / "tls.key").write_bytes(  # in the form in which the node's authority writes it
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        certificate.cert_chain_pems[0].write_to_path(self.tls / "tls.crt")
        for file in (folder, self.tls, *self.tls.iterdir()):
            file.chmod(0o755)

    def start(self, service: str, *, environment: dict[str, str], volume: str = "") -> Box:
        manifest, config = self._read(service)
        lower = ":".join(str(self._unpacked(layer["digest"])) for layer in reversed(manifest["layers"]))
        (target,) = config["config"]["Volumes"]
        user = config["config"]["User"]
        source = self._folder / f"volume-{volume or service}"
        if not source.exists():
            source.mkdir(mode=0o755)
            (source / "lost+found").mkdir(mode=0o700)
            os.chown(source, *map(int, user.split(":")))
        work = self._folder / f"{service}-{time.monotonic_ns()}"
        for name in ("root", "upper", "work"):
            (work / name).mkdir(parents=True)
            (work / name).chmod(0o755)
        (work / "upper").chmod(0o755)
        log = work / "log"
        process = subprocess.Popen(
            (
                *("setpriv", "--pdeathsig=KILL", "nsenter", f"--net=/proc/{self._network}/ns/net"),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", MOUNTS, service),
                *(str(work / "root"), lower, str(work), str(source), target, str(self.tls), user),
                *("env", "-i", *config["config"]["Env"], *(f"{k}={v}" for k, v in environment.items())),
                *config["config"]["Entrypoint"],
            ),
            stdin=subprocess.DEVNULL,
            stdout=self._output(log, user),
            stderr=subprocess.STDOUT,
        )
        box = Box(service, process, log, self._network, user)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return box

    def _output(self, log: Path, user: str) -> int:
        """The container's output belongs to its user, as crun arranges it."""
        descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchown(descriptor, *map(int, user.split(":")))
        self._stack.callback(os.close, descriptor)
        return descriptor

    def _read(self, service: str) -> tuple[dict, dict]:  # type: ignore[type-arg]
        index = json.loads((self._layout / "index.json").read_bytes())
        (descriptor,) = (
            d for d in index["manifests"] if d["annotations"]["org.opencontainers.image.ref.name"] == service
        )
        manifest = json.loads(self._blob(descriptor["digest"]).read_bytes())
        return manifest, json.loads(self._blob(manifest["config"]["digest"]).read_bytes())

    def _blob(self, digest: str) -> Path:
        return self._layout / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _unpacked(self, digest: str) -> Path:
        folder = self._layers / digest.removeprefix("sha256:")
        if not folder.exists():
            folder.mkdir()
            blob = self._blob(digest)
            with blob.open("rb") as source:
                stream = LayerStream(DigestedInput(source.read, blob.stat().st_size))
                with subprocess.Popen(("tar", "-xp", "-C", folder), stdin=subprocess.PIPE) as tar:
                    assert tar.stdin
                    shutil.copyfileobj(stream, tar.stdin)
                assert tar.returncode == 0
            for whiteout in list(folder.rglob(".wh.*")):
                gone = whiteout.with_name(whiteout.name.removeprefix(".wh."))
                whiteout.unlink()
                os.mknod(gone, 0o020000, os.makedev(0, 0))
        return folder


@pytest.fixture(scope="session")
def layout() -> Path:
    builder = Builder(Path(str(STATE)), progress=lambda subject, message: print(f"{subject}: {message}"))
    for service in ("kafka", "mariadb", "redis", "nginx", "wordpress"):
        builder.build(service)
    return builder.layout


@pytest.fixture(scope="session")
def layers(disk: Path) -> Path:
    folder = disk / "layers"
    folder.mkdir()
    return folder


@pytest.fixture
def boxes(layout: Path, layers: Path, tmp_path: Path) -> Iterator[Boxes]:
    with ExitStack() as stack:
        network = subprocess.Popen(
            ("setpriv", "--pdeathsig=KILL", "unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert network.stdin
        assert network.stdout
        network.stdout.readline()
        stack.enter_context(network)
        stack.callback(network.kill)
        yield Boxes(layout, layers, tmp_path, network.pid, stack)


TLS = {name: f"/run/nanocloud/tls/{file}" for name, file in (("KEY", "tls.key"), ("CERT", "tls.crt"), ("CA", "ca.crt"))}


def mariadb(boxes: Boxes) -> Box:
    return boxes.start("mariadb", environment={f"MARIADB_TLS_{name}": path for name, path in TLS.items()})


def sql(box: Box, statement: str, *, user: str = "mysql") -> str:
    done = box.run("mariadb", f"--user={user}", "--batch", "--skip-column-names", f"--execute={statement}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mariadb_has_no_anonymous_user_no_test_database_and_keeps_its_data(boxes: Boxes) -> None:
    first = mariadb(boxes)
    first.wait_ready()
    accounts = sql(first, "SELECT CONCAT(user, '@', host) FROM mysql.global_priv ORDER BY 1").split()
    assert accounts == ["mariadb.sys@localhost", "mysql@localhost", "nobody@localhost", "root@localhost"]
    assert sql(first, "SHOW DATABASES").split() == ["information_schema", "mysql", "performance_schema", "sys"]
    assert "YES" in sql(first, "SHOW VARIABLES LIKE 'have_ssl'")
    sql(first, "CREATE DATABASE kept")
    assert first.stop() == 0
    second = mariadb(boxes)
    second.wait_ready()
    assert "kept" in sql(second, "SHOW DATABASES").split()


def test_mariadb_starts_again_after_it_was_killed_while_it_made_its_data(boxes: Boxes) -> None:
    first = mariadb(boxes)
    volume = boxes._folder / "volume-mariadb"
    while not (volume / "data.new" / "mysql").exists():
        assert first.process.poll() is None
        assert not (volume / "data").exists()
    first.kill()
    second = mariadb(boxes)
    second.wait_ready()
    assert not (volume / "data.new").exists()


def test_mariadb_binding_makes_a_user_whatever_the_password_is(boxes: Boxes) -> None:
    box = mariadb(boxes)
    box.wait_ready()
    login = (
        'MYSQL_PWD="$(cat /dev/fd/3; echo .)"; export MYSQL_PWD="${MYSQL_PWD%.}";'
        "exec mariadb --host=127.0.0.1 --user=shop --batch --skip-column-names -e "
    )
    for password in (b"simple", b"a'b\"c\\d`e$f;g\nh -- i", "schlüssel €".encode(), b"x" * 256):
        for _ in range(2):  # repeats safely
            done = box.bind("create_user", "my_shop", "shop", "/dev/fd/3", secret=password)
            assert done.returncode == 0, done.stderr
            assert done.stdout == ""
        granted = box.bind(
            "sh", "-c", login + "'SHOW DATABASES; CREATE OR REPLACE TABLE my_shop.t (i INT)'", secret=password
        )
        assert granted.returncode == 0, granted.stderr
        assert granted.stdout.split() == ["information_schema", "my_shop"]
        # An underscore is no wildcard.
        assert box.bind("sh", "-c", login + "'CREATE DATABASE myxshop'", secret=password).returncode != 0
        assert box.bind("sh", "-c", login + "'SELECT 1'", secret=password + b"!").returncode != 0
    assert box.bind("create_user", "my_shop", "shop", "/dev/fd/3", "tls", secret=password).returncode == 0
    assert "REQUIRE SSL" in sql(box, "SHOW GRANTS FOR shop")
    assert box.bind("verify_user", "my_shop", "shop", "/dev/fd/3", "tls", secret=password).returncode == 0
    refused = box.bind("verify_user", "my_shop", "shop", "/dev/fd/3", "tls", secret=password + b"!")
    assert "Access denied" in refused.stderr
    assert box.bind("verify_user", "mysql", "shop", "/dev/fd/3", "tls", secret=password).returncode != 0
    for _ in range(2):
        done = box.bind("revoke_user", "my_shop", "shop", "/dev/null", "tls")
        assert done.returncode == 0, done.stderr
    assert box.bind("verify_user", "my_shop", "shop", "/dev/fd/3", "tls", secret=password).returncode != 0
    assert sql(box, "SELECT COUNT(*) FROM mysql.user WHERE user = 'shop'").strip() == "0"
    assert "my_shop" in sql(box, "SHOW DATABASES")


def test_mariadb_binding_refuses_what_could_reach_beyond_its_database(boxes: Boxes) -> None:
    box = mariadb(boxes)
    box.wait_ready()
    for arguments, password, message in (
        (("a`b", "u", "/dev/fd/3"), b"x", "database 'a`b' must be made of"),
        (("mysql", "u", "/dev/fd/3"), b"x", "database 'mysql' belongs to the server"),
        (("a", "root", "/dev/fd/3"), b"x", "user 'root' belongs to the server"),
        (("a", "u'; DROP", "/dev/fd/3"), b"x", "must be made of"),
        (("a" * 65, "u", "/dev/fd/3"), b"x", "longer than 64"),
        (("a", "u", "/nonexistent"), b"x", "cannot be read"),
        (("a", "u", "/dev/fd/3"), b"", "empty"),
        (("a", "u", "/dev/fd/3"), b"a\0b", "NUL"),
        (("a", "u", "/dev/fd/3"), b"\xff\xfe", "UTF-8"),
        (("a", "u", "/dev/fd/3"), b"x" * 257, "longer than 256"),
        (("a", "u", "/dev/fd/3", "ssh"), b"x", "must be plain or tls"),
    ):
        done = box.bind("create_user", *arguments, secret=password)
        assert done.returncode == 64
        assert message in done.stderr
        assert "a" not in sql(box, "SHOW DATABASES").split()


def test_redis_users_of_dependants_are_kept_and_limited(boxes: Boxes) -> None:
    environment = {"REDIS_PASSWORD": "secret word"} | {f"REDIS_TLS_{name}": path for name, path in TLS.items()}
    first = boxes.start("redis", environment=environment)
    first.wait_ready()
    assert first.bind("create_user", "shop", "/dev/fd/3", "shop:", secret=b"p w'\"\\").returncode == 0
    assert first.bind("create_user", "default", "/dev/fd/3", secret=b"x").returncode == 64

    def ask(box: Box, user: str, secret: bytes, *command: str) -> str:
        script = 'REDISCLI_AUTH=$(cat /dev/fd/3) exec redis-cli --no-auth-warning --user "$0" "$@"'
        return box.bind("sh", "-c", script, user, *command, secret=secret).stdout.strip()

    assert ask(first, "shop", b"p w'\"\\", "SET", "shop:a", "1") == "OK"
    assert "NOPERM" in ask(first, "shop", b"p w'\"\\", "SET", "other", "1")
    assert "NOPERM" in ask(first, "shop", b"p w'\"\\", "CONFIG", "GET", "*")
    assert "NOAUTH" in ask(first, "default", b"wrong", "PING")
    assert ask(first, "default", b"secret word", "PING") == "PONG"
    assert ask(first, "default", b"secret word", "--tls", "--cacert", TLS["CA"], "-p", "6380", "PING") == "PONG"
    assert first.stop() == 0
    assert "secret word" not in first.log.read_text()
    assert b"secret word" not in (boxes._folder / "volume-redis" / "users.acl").read_bytes()
    second = boxes.start("redis", environment=environment | {"REDIS_PASSWORD": "changed"})
    second.wait_ready()
    assert ask(second, "shop", b"p w'\"\\", "GET", "shop:a") == "1"
    assert ask(second, "default", b"changed", "PING") == "PONG"
    assert second.bind("verify_user", "shop", "/dev/fd/3", secret=b"p w'\"\\").returncode == 0
    assert "WRONGPASS" in second.bind("verify_user", "shop", "/dev/fd/3", secret=b"p").stderr
    for _ in range(2):
        assert second.bind("revoke_user", "shop", "/dev/null").returncode == 0
    assert "NOAUTH" in ask(second, "shop", b"p w'\"\\", "GET", "shop:a")


def test_kafka_makes_its_data_whole_or_not_at_all_and_keeps_its_own_password(boxes: Boxes) -> None:
    environment = {"KAFKA_BUNDLE": "localhost"} | {f"KAFKA_TLS_{name}": path for name, path in TLS.items()}
    first = boxes.start("kafka", environment=environment)
    first.wait_ready()
    facts = first.bind("cat", "/dev/shm/nanocloud.properties").stdout
    password = facts.partition("password=")[2].partition("\n")[0]
    assert len(password) == 64
    assert password not in first.log.read_text()
    assert first.bind("cat", "/dev/shm/server.properties").returncode != 0
    for transport in ("plain", "tls"):
        for command in ("create_user", "verify_user"):
            done = first.bind(command, "shop", "/dev/fd/3", transport, secret=b"p w'\"\\")
            assert done.returncode == 0, done.stderr
    first.kill()
    volume = boxes._folder / "volume-kafka"
    (volume / "data").rename(volume / "data.new")
    (volume / "data.new" / "meta.properties").write_text("cluster.id=")  # as if it had been killed at its first start
    second = boxes.start("kafka", environment=environment)
    second.wait_ready()
    assert not (volume / "data.new").exists()
    assert password not in second.bind("cat", "/dev/shm/nanocloud.properties").stdout
    assert second.bind("verify_user", "shop", "/dev/fd/3", secret=b"p w'\"\\").returncode == 1
    subprocess.run(("kill", "-TERM", str(second._pid())), check=True)
    assert second.process.wait(30) == 143


def test_nginx_serves_its_volume(boxes: Boxes) -> None:
    first = boxes.start("nginx", environment={f"NGINX_TLS_{name}": path for name, path in TLS.items()})
    first.wait_ready()
    assert first.fetch("http://127.0.0.1:8080/")[0] == 200
    assert first.fetch("http://127.0.0.1:8080/lost+found/")[0] == 404
    assert '"GET / HTTP/1.1" 200' in first.log.read_text()
    (boxes._folder / "volume-nginx" / "index.html").write_text("mine")
    subprocess.run(("kill", "-QUIT", str(first._pid())), check=True)
    assert first.process.wait(30) == 0
    second = boxes.start("nginx", environment={})
    second.wait_ready()
    assert second.fetch("http://127.0.0.1:8080/") == (200, "mine")


def wordpress(secret: bytes, transport: str) -> dict[str, str]:
    return {
        "WORDPRESS_DB_HOST": "mariadb.default.svc",
        "WORDPRESS_DB_PORT": "3306",
        "WORDPRESS_DB_NAME": "wordpress",
        "WORDPRESS_DB_USER": "wordpress",
        "WORDPRESS_DB_PASSWORD": secret.decode(),
        "WORDPRESS_DB_TRANSPORT": transport,
        "WORDPRESS_TITLE": "Züri's shop",
        "WORDPRESS_ADMIN_USER": "admin",
        "WORDPRESS_ADMIN_EMAIL": "admin@example.com",
        "WORDPRESS_ADMIN_PASSWORD": "a\\b'c",
        "WORDPRESS_SALT": "s" * 64,
        "WORDPRESS_URL": "",
    } | {f"WORDPRESS_TLS_{name}": path for name, path in TLS.items()}


@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_wordpress_installs_itself_with_its_database(boxes: Boxes, transport: str) -> None:
    database = mariadb(boxes)
    database.wait_ready()
    secret = b"db'pass\\word"
    done = database.bind("create_user", "wordpress", "wordpress", "/dev/fd/3", transport, secret=secret)
    assert done.returncode == 0, done.stderr
    environment = wordpress(secret, transport)
    site = boxes.start("wordpress", environment=environment)
    site.wait_ready()
    status, page = site.fetch("http://127.0.0.1:8080/")
    assert status == 200
    assert re.search(r"<title>Züri\S+s shop</title>", page)
    assert set(re.findall(r"http://[^/\"']*(?::8080)", page)) == {"http://127.0.0.1:8080"}
    assert site.fetch("http://127.0.0.1:8080/wp-login.php")[0] == 200
    assert site.fetch("http://127.0.0.1:8080/wp-content/themes/twentytwentythree/style.css")[0] == 200
    assert site.fetch("http://127.0.0.1:8080/wp-config.php")[1] == ""
    # The account itself says whether a connection in the clear is taken.
    clear = "MYSQL_PWD=$(cat /dev/fd/3) exec mariadb --host=127.0.0.1 --user=wordpress --skip-ssl -e 'SELECT 1'"
    refused = database.bind("sh", "-c", clear, secret=secret).returncode != 0
    assert refused == (transport == "tls")
    assert secret.decode() not in site.log.read_text()

    again = "SELECT COUNT(*) FROM wordpress.wp_users"
    assert sql(database, again).strip() == "1"
    assert site.stop() == 0
    restarted = boxes.start("wordpress", environment=environment)
    restarted.wait_ready()
    assert sql(database, again).strip() == "1"
    # One of the two servers dies: the container must not live on as half a site.
    assert restarted.run("sh", "-c", "kill -9 $(cat /tmp/wordpress/nginx.pid)").returncode == 0
    assert restarted.process.wait(30) == 1


def test_wordpress_refuses_a_database_with_a_foreign_certificate(boxes: Boxes) -> None:
    database = mariadb(boxes)
    database.wait_ready()
    assert database.bind("create_user", "wordpress", "wordpress", "/dev/fd/3", "tls", secret=b"x").returncode == 0
    site = boxes.start("wordpress", environment=wordpress(b"x", "tls"))
    site.wait_ready()
    connect = (
        "mysqli_report(MYSQLI_REPORT_OFF); $l = mysqli_init(); exit(@$l->real_connect('mariadb.default.svc',"
        " 'wordpress', 'x', null, 3306, null, MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_VERIFY_SERVER_CERT) ? 0 : 1);"
    )
    for authorities, code in (("/tmp/wordpress/ca.pem", 0), ("/etc/ssl/certs/ca-certificates.crt", 1)):
        assert site.run("php8.2", "-d", f"openssl.cafile={authorities}", "-r", connect).returncode == code
