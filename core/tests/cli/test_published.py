from __future__ import annotations

import pytest

from nanocloud.cli.services import published


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("8080->80", ["http://127.0.0.1:8080/"]),
        ("0.0.0.0:81->8080/tcp", ["http://127.0.0.1:81/"]),
        ("192.0.2.1:443->8443/tcp", ["https://192.0.2.1:443/"]),
        ("[2001:db8::1]:443->8448", ["https://[2001:db8::1]:443/"]),
        ("5222->5222/tcp", ["127.0.0.1:5222"]),
        ("53->53/udp", []),
        ("3306/tcp", []),
    ],
)
def test_a_published_port_is_a_url_where_a_web_server_is_known_to_listen(port: str, said: list[str]) -> None:
    assert published({"port_1": port, "title": "8080->80"}) == said
