"""An XMPP client, as much of one as a test needs: TLS, login by password, and messages.

Each element that the server sends is handed out as soon as it is whole; nothing is interpreted but what a login needs.
"""

from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path
from typing import Self
from xml.etree.ElementTree import Element, XMLPullParser
from xml.sax.saxutils import escape, quoteattr

SASL, TLS = "{urn:ietf:params:xml:ns:xmpp-sasl}", "{urn:ietf:params:xml:ns:xmpp-tls}"
CLIENT, STREAM = "{jabber:client}", "{http://etherx.jabber.org/streams}"
LIMIT_SECONDS = 30.0


class LoginError(Exception):
    """The server did not take the password; the text is the name of its reason."""


class Client:
    """A stream to a server for ``domain``; without ``direct`` it begins in the clear and asks for TLS.

    Raises:
        ssl.SSLCertVerificationError: the certificate is not of ``authority``, or not for ``domain``.
    """

    def __init__(self, address: tuple[str, int], domain: str, authority: Path, *, direct: bool = False) -> None:
        self.domain = domain
        self._socket = socket.create_connection(address, LIMIT_SECONDS)
        context = ssl.create_default_context(cafile=str(authority))
        try:
            if not direct:
                self.clear_features = self._open()
                self._send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
                assert self.next().tag == TLS + "proceed"
            self._socket = context.wrap_socket(self._socket, server_hostname=domain)
            self.features = self._open()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def log_in(self, name: str, password: str) -> None:
        """SASL PLAIN, a resource, and presence: from then on messages arrive."""
        token = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
        self._send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{token}</auth>")
        answer = self.next()
        if answer.tag != SASL + "success":
            raise LoginError(answer[0].tag.removeprefix(SASL))
        self._open()
        self._send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><presence/>")
        assert self.next(CLIENT + "iq").get("type") == "result"

    def say(self, to: str, text: str) -> None:
        body = f"<body>{escape(text)}</body>"
        self._send(f"<message type='chat' to={quoteattr(f'{to}@{self.domain}')}>{body}</message>")

    def heard(self) -> tuple[str, str]:
        """The next message with a text: of whom, and what."""
        while True:
            message = self.next(CLIENT + "message")
            if (text := message.findtext(CLIENT + "body")) is not None:
                return message.get("from", "").partition("@")[0], text

    def next(self, tag: str = "") -> Element:
        while True:
            for _, element in self._parser.read_events():
                if not isinstance(element, Element):
                    continue
                if self._depth_after(element) and tag in ("", element.tag):
                    return element
            data = self._socket.recv(65536)
            assert data, f"the server ended the stream while {tag or 'an element'} was expected"
            self._parser.feed(data)

    def _depth_after(self, element: Element) -> bool:
        """Whether this was a child of the stream itself: the parser tells of starts and ends alike."""
        if self._open_elements and self._open_elements[-1] is element:
            self._open_elements.pop()
            return len(self._open_elements) == 1
        self._open_elements.append(element)
        return False

    def _open(self) -> Element:
        self._parser, self._open_elements = XMLPullParser(["start", "end"]), list[Element]()
        self._send(
            f"<?xml version='1.0'?><stream:stream to={quoteattr(self.domain)} version='1.0' xmlns='jabber:client'"
            " xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        return self.next(STREAM + "features")

    def _send(self, text: str) -> None:
        self._socket.sendall(text.encode())
