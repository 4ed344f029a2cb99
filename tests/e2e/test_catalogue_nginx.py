"""nginx before other services: a real site, in the clear and over TLS, and one that shows what reaches it."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb", "wordpress", "mediawiki", "git", "nginx")

ECHO = """#!/bin/sh
# Answers with the request's headers; gives what comes over a web socket back as it is.
headers="" upgrade="" length=0
while read -r line; do
    line=${line%?}
    [ -n "$line" ] || break
    headers="$headers$line
"
    case $line in
        Upgrade:*) upgrade=1 ;;
        Content-Length:*) length=${line#*: } ;;
    esac
done
if [ -n "$upgrade" ]; then
    printf 'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n'
    exec cat
fi
body=$(head -c "$length" | wc -c)
printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n%sbody: %s\\n' "$headers" "$body"
"""


@pytest.fixture(scope="module")
def echo(node: TestNode) -> str:
    """A tiny service behind an nginx of its own, ``front``, which is published on port 8090; its image."""
    image = node.layout.add(
        "echo",
        command=["nc", "-ll", "-p", "8080", "-e", "/echo.sh"],
        files={"/echo.sh": ECHO},
        labels={"io.nanocloud.options": {"port_1": ["8080"]}},
    )
    node.cli("install", "echo", "--image", image)
    install_front(node, "upstream=other", "other_upstream=echo.default.svc:8080", "port_1=8090->8080")
    return image


def install_front(node: TestNode, *options: str, code: int = 0) -> str:
    words = [word for option in options for word in ("-o", option)]
    image = f"oci:{node.layout.folder}:nginx"
    return node.cli("install", "front", "--image", image, *words, seconds=MINUTES, code=code).stderr


def fetch(node: TestNode, url: str, *words: str) -> str:
    return node.run("curl", "-sSf", "--max-time", "30", *words, url).stdout


def status_of(node: TestNode, url: str, *words: str) -> str:
    return fetch(node, url, "--no-fail", "-o", "/dev/null", "-w", "%{http_code}", *words)


def test_the_upstream_learns_who_asks_and_how_from_nginx_alone(node: TestNode, echo: str) -> None:
    lies = ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4")
    spoofed = [word for lie in lies for word in ("-H", lie)]
    answer = fetch(node, "http://127.0.0.1:8090/a%2Fb/.well-known/x?y=%20", *spoofed)
    first, *rest = answer.splitlines()
    assert first == "GET /a%2Fb/.well-known/x?y=%20 HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in rest)
    assert headers["Host"] == headers["X-Forwarded-Host"] == "127.0.0.1:8090"
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Real-IP"] == headers["X-Forwarded-For"] != "1.2.3.4"
    assert "Forwarded" not in headers
    assert "1.2.3.4" not in answer


def test_bodies_pass_up_to_the_limit(node: TestNode, echo: str, tmp_path: Path) -> None:
    big, bigger = tmp_path / "big", tmp_path / "bigger"
    for file, size_mib in ((big, 60), (bigger, 65)):
        with file.open("wb") as sparse:
            sparse.truncate(size_mib * 1024 * 1024)
    assert "body: 62914560" in fetch(node, "http://127.0.0.1:8090/", "--data-binary", f"@{big}", "-H", "Expect:")
    assert status_of(node, "http://127.0.0.1:8090/", "--data-binary", f"@{bigger}", "-H", "Expect:") == "413"


def test_a_web_socket_carries_both_ways(node: TestNode, echo: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    with node.entered():
        stream = socket.create_connection(("127.0.0.1", 8090), 30)
    with stream, stream.makefile("rb") as answers:
        request = (
            f"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}"
        )
        stream.sendall(request.encode() + b"\r\n\r\n")
        assert answers.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
        while answers.readline() != b"\r\n":
            pass
        for text in (b"one", b"two"):
            stream.sendall(text)
            assert answers.read(len(text)) == text


def test_an_upstream_that_comes_back_with_another_address_is_found(node: TestNode, echo: str) -> None:
    before, process = node.pod("echo")["status"]["podIP"], node.process_of("front")
    assert "Host: " in fetch(node, "http://127.0.0.1:8090/")
    node.cli("uninstall", "echo")
    assert status_of(node, "http://127.0.0.1:8090/") in ("502", "504")
    node.cli("install", "squatter", "--image", echo)  # takes the address that is free now
    node.cli("install", "echo", "--image", echo)
    assert node.pod("echo")["status"]["podIP"] != before
    retry = ("--retry", "10", "--retry-delay", "1", "--retry-all-errors")
    assert "Host: " in fetch(node, "http://127.0.0.1:8090/", *retry)
    assert node.process_of("front") == process


def test_an_upstream_that_is_not_told_whole_is_refused(node: TestNode) -> None:
    image = f"oci:{node.layout.folder}:nginx"
    for option, why in (
        ("upstream=other", "upstream: requires other_upstream, which has no value"),
        ("upstream=nothing", "'nothing' is not a choice"),
    ):
        assert why in node.cli("install", "nobody", "--image", image, "-o", option, "--dry-run", code=1).stderr


def peers(node: TestNode, service: str) -> set[int]:
    """The ports that the service has connected to, also a moment ago."""
    found = set[int]()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{node.process_of(service)}/net/{name}").read_text().splitlines()[1:]:
            _, _, remote, state, *_ = line.split()
            if state != "0A":  # not a listening socket
                found.add(int(remote.rpartition(":")[2], 16))
    return found


def foreign_authority(folder: Path) -> str:
    file = folder / "foreign.crt"
    words = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=foreign", "-days", "1")
    subprocess.run(
        ("openssl", "req", "-x509", *words, "-keyout", "/dev/null", "-out", file), check=True, capture_output=True
    )
    return file.read_text()


def test_one_command_puts_nginx_before_a_site_that_it_reaches_over_tls_alone(node: TestNode, tmp_path: Path) -> None:
    options = ("upstream=wordpress", "upstream_transport=tls", "port_1=80->8080", "port_2=443->8443")
    words = [word for option in options for word in ("-o", option)]
    node.cli("install", "nginx", *words, "--timeout", "5m", seconds=MINUTES)
    authority = tmp_path / "ca.crt"
    authority.write_text(node.cli("exec", "nginx", "--", "cat", "/run/nanocloud/tls/ca.crt").stdout)
    title = "<title>A WordPress on Nanocloud</title>"
    # The site is called by the name that the visitor used, and by the way they came.
    for address, secure in (("http://127.0.0.1", ()), ("https://127.0.0.1", ("--cacert", str(authority)))):
        page = fetch(node, f"{address}/", *secure)
        assert title in page
        assert set(re.findall(r"https?://127\.0\.0\.1[^/\"']*", page)) == {address}
    assert 8443 in peers(node, "nginx")
    assert 8080 not in peers(node, "nginx")

    # A site is more than a page: somebody logs in, over TLS to nginx.
    form = ("-d", "log=admin", "--data-urlencode", f"pwd={node.env_of('wordpress')['WORDPRESS_ADMIN_PASSWORD']}")
    login = ("-c", str(tmp_path / "jar"), "-b", "wordpress_test_cookie=WP%20Cookie%20check", *form)
    secure = ("--cacert", str(authority))
    assert status_of(node, "https://127.0.0.1/wp-login.php", *secure, *login) == "302"
    assert "Dashboard" in fetch(node, "https://127.0.0.1/wp-admin/", *secure, "-b", str(tmp_path / "jar"))

    # nginx takes neither a site with a certificate of another authority, nor one with another name.
    script = "cat > /srv/www/foreign.crt"
    node.cli("exec", "-i", "nginx", "--", "sh", "-c", script, stdin=foreign_authority(tmp_path))
    node.cli("install", "nginx", *words, "-o", "env_NGINX_TLS_CA=/srv/www/foreign.crt", seconds=MINUTES)
    assert status_of(node, "http://127.0.0.1/") == "502"
    assert "upstream SSL certificate verify error" in node.cli("logs", "nginx").stdout
    address = node.pod("wordpress")["status"]["podIP"]
    elsewhere = ("upstream=other", f"other_upstream={address}:8443", "upstream_transport=tls")
    install_front(node, *elsewhere, "port_1=8090->8080")
    assert status_of(node, "http://127.0.0.1:8090/") in ("502", "504")
    assert "upstream SSL certificate does not match" in node.cli("logs", "front").stdout


def test_the_site_may_also_be_reached_in_the_clear_and_restart_meanwhile(node: TestNode) -> None:
    options = ("upstream=wordpress", "upstream_transport=plain", "port_1=80->8080", "port_2=443->8443")
    words = [word for option in options for word in ("-o", option)]
    node.cli("install", "nginx", *words, "--timeout", "5m", seconds=MINUTES)
    assert "A WordPress on Nanocloud" in fetch(node, "http://127.0.0.1/")
    assert 8080 in peers(node, "nginx")
    process = node.process_of("nginx")
    node.cli("restart", "wordpress", seconds=MINUTES)
    assert "A WordPress on Nanocloud" in fetch(node, "http://127.0.0.1/")
    assert node.process_of("nginx") == process


@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_a_wiki_answers_with_the_address_that_its_visitor_used(node: TestNode, transport: str) -> None:
    options = ("upstream=mediawiki", f"upstream_transport={transport}", "port_1=8090->8080", "port_2=8490->8443")
    install_front(node, *options)
    for address in ("http://127.0.0.1:8090", "https://127.0.0.1:8490"):
        moved = fetch(node, f"{address}/", "-k", "-o", "/dev/null", "-w", "%{redirect_url}")
        assert moved == f"{address}/wiki/Main_Page"
        assert "A MediaWiki on Nanocloud" in fetch(node, moved, "-k")


def test_a_push_larger_than_any_page_goes_to_a_server_that_speaks_tls_only(node: TestNode, tmp_path: Path) -> None:
    image = f"oci:{node.layout.folder}:nginx"
    words = ("-o", "upstream=git", "-o", "upstream_transport=plain")
    plain = node.cli("install", "front", "--image", image, *words, "--dry-run", code=1).stderr
    assert "upstream: requires upstream_transport=tls" in plain
    node.cli("install", "git", "-o", "database=mariadb", "--timeout", "5m", seconds=MINUTES)
    options = ("upstream=git", "upstream_transport=tls", "max_body_size=0", "port_1=8090->8080", "port_2=8490->8443")
    install_front(node, *options)
    node.cli("exec", "git", "--", "repositories", "create", "demo")
    authority, ask = tmp_path / "ca.crt", tmp_path / "ask"
    authority.write_text(node.cli("exec", "front", "--", "cat", "/run/nanocloud/tls/ca.crt").stdout)
    ask.write_text('#!/bin/sh\nprintf %s "$PASSWORD"\n')
    ask.chmod(0o755)
    environment = {
        "GIT_SSL_CAINFO": str(authority),
        "GIT_ASKPASS": str(ask),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PASSWORD": node.env_of("git")["GIT_ADMIN_PASSWORD"],
    }
    here, there = tmp_path / "here", tmp_path / "there"
    url = "https://administrator@127.0.0.1:8490/demo.git"
    here.mkdir()
    (here / "file").write_bytes(os.urandom(70 * 1024 * 1024))
    person = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    for words in (
        ("-C", here, "init", "-q", "-b", "main"),
        ("-C", here, "add", "file"),
        ("-C", here, *person, "commit", "-q", "-m", "change"),
        ("-C", here, "push", "-q", url, "main"),
        ("clone", "-q", "-b", "main", url, there),
    ):
        node.run("git", *words, environment=environment, seconds=MINUTES)
    assert (there / "file").read_bytes() == (here / "file").read_bytes()


def test_without_an_upstream_nginx_serves_its_volume(node: TestNode) -> None:
    image = f"oci:{node.layout.folder}:nginx"
    node.cli("install", "pages", "--image", image, "-o", "port_1=8091->8080", seconds=MINUTES)
    assert "<h1>It works</h1>" in fetch(node, "http://127.0.0.1:8091/")
    assert status_of(node, "http://127.0.0.1:8091/.hidden") == "404"
