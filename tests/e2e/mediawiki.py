"""A client of MediaWiki, as bots are: the action API with a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nodes import TestNode


class Session:
    """A user of a wiki's API; the cookies are in a file, which curl keeps."""

    def __init__(self, node: TestNode, cookies: Path, base: str) -> None:
        self._node, self._cookies, self._url = node, cookies, f"{base}/api.php"

    def ask(self, **parameters: str) -> dict[str, Any]:
        data = [
            word
            for name, value in {"format": "json", **parameters}.items()
            for word in ("--data-urlencode", f"{name}={value}")
        ]
        jar = str(self._cookies)
        done = self._node.run("curl", "-sSf", "--max-time", "30", "-b", jar, "-c", jar, *data, self._url)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def token(self, kind: str) -> str:
        return str(self.ask(action="query", meta="tokens", type=kind)["query"]["tokens"][f"{kind}token"])

    def log_in(self, name: str, password: str) -> str:
        words = {"action": "login", "lgname": name, "lgpassword": password, "lgtoken": self.token("login")}
        return str(self.ask(**words)["login"]["result"])

    def who(self) -> tuple[str, set[str]]:
        about = self.ask(action="query", meta="userinfo", uiprop="groups")["query"]["userinfo"]
        return about["name"], set(about["groups"])
