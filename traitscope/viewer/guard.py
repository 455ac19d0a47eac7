"""Who may see the pages: the token, the Host, the Origin, the method; and every answer's headers.

A loopback port is open to every user of a shared machine, and to every page that the browser has
open.  So the printed URL carries a random token, which is then kept in a cookie; only names that
are known may be asked for (a page elsewhere cannot point its own name here); requests of foreign
pages are refused; only GET and HEAD are answered.  Knows nothing of runs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Guard", "cookie_of", "host_name", "is_loopback"]

HEADERS = {
    # no script but the pages' own files; cells are coloured by inline styles, pictures are blobs
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@]+)(?::\d{1,5})?")


def host_name(host: str) -> str:
    """The name in a Host header, lower case, without port and brackets; "" where it is none."""
    match = _HOST.fullmatch(host)
    return match[1].strip("[]").rstrip(".").lower() if match else ""


def is_loopback(name: str) -> bool:
    """Whether a name or address is this machine's own, whoever asks."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def cookie_of(token: str) -> tuple[str, str]:
    """Name and value of the cookie that stands for a token.

    The name depends on the token: cookies do not tell ports apart, and two viewers shall not log
    each other out.  The value does not give the token away.
    """
    name = hashlib.sha256(f"name {token}".encode()).hexdigest()[:12]
    return f"traitscope-{name}", hashlib.sha256(f"value {token}".encode()).hexdigest()


@dataclass(frozen=True)
class Guard:
    """Stands before the whole application.

    `token` is asked for unless it is empty; `hosts` are the names that may be asked for besides
    loopback ones.
    """

    app: ASGIApp
    token: str = ""
    hosts: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # pages use nothing else
            return
        request = Request(scope)
        response = self._refused(request) or self._entered(request)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (response or self.app)(scope, receive, with_headers)

    def _refused(self, request: Request) -> Response | None:
        """The answer to a request that may not be made, else None."""
        asked = [host_name(host) for host in request.headers.getlist("host")]
        if len(asked) != 1 or not (is_loopback(asked[0]) or asked[0] in self.hosts):
            return _no(
                request,
                403,
                "Expected a loopback name such as localhost as the host, got "
                f"'{', '.join(asked) or 'none'}'. Start the viewer with --allow-host NAME to "
                "answer to another name.",
            )
        if request.method not in ("GET", "HEAD"):
            answer = _no(request, 405, "Expected GET or HEAD: the viewer changes nothing.")
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers["host"]:
            return _no(request, 403, "Expected a request of the viewer's own page, got another's.")
        if not self._known(request):
            return _no(
                request,
                401,
                "Expected the token. Open the whole URL that 'traitscope view' printed; it ends in "
                "?token=...",
            )
        return None

    def _known(self, request: Request) -> bool:
        name, value = cookie_of(self.token)
        return (
            not self.token
            or _same(request.query_params.get("token", ""), self.token)
            or _same(request.cookies.get(name, ""), value)
        )

    def _entered(self, request: Request) -> Response | None:
        """The first page with a token: keep it in a cookie, and out of the address and history."""
        if request.url.path != "/" or "token" not in request.query_params:
            return None
        answer = RedirectResponse("./", status_code=303)  # relative: a proxy's prefix stays
        if self.token:
            name, value = cookie_of(self.token)
            # no path: the browser takes the page's own, which behind a proxy is not the host's root
            answer.set_cookie(name, value, path=None, httponly=True, samesite="lax")
        return answer


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _no(request: Request, status: int, sentence: str) -> Response:
    """JSON for scripts, plain text (never markup) for a person."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": sentence}, status_code=status)
    return PlainTextResponse(f"{sentence}\n", status_code=status)
