"""The verb that opens runs in a browser: it listens, says where, and ends with Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.text import Text

from traitscope.cli.options import Json
from traitscope.cli.screen import Screen
from traitscope.errors import InputError, TraitscopeError

if TYPE_CHECKING:
    import uvicorn

    from traitscope.viewer import OpenRuns

__all__ = ["view"]

FIRST_PORT, TRIED = 8765, 20
ANYWHERE = {"0.0.0.0", "::", ""}  # every interface: no name of a host


def view(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="Runs, or folders of runs. Without any: those in ./runs."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            help=f"Where to listen; 0: any free one. Without it: the first free from {FIRST_PORT}.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="The interface to listen on."),
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name besides localhost by which the browser may call it (behind a proxy); "
            "may be repeated.",
        ),
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the URL, open no browser.")
    ] = False,
    no_token: Annotated[
        bool,
        typer.Option("--no-token", help="Ask for no token: everyone on this machine can look."),
    ] = False,
    json: Json = False,
) -> int:
    """Look at runs in the browser: every prompt, every token, every site.

    Nothing is changed, and nothing comes from the network.  Ctrl-C ends it.

    Examples:

      traitscope view runs/overnight-1a2b3c4d

      traitscope view --no-open --port 8080
    """
    from traitscope.viewer import host_name, make_app, open_runs

    screen = Screen.now(json=json)
    names = frozenset(_named(name, host_name(name)) for name in allow_host or ())
    if host in ANYWHERE and not names:
        raise InputError(
            f"Expected --allow-host NAME with --host {host}: the name by which browsers call this "
            "machine. Others are refused."
        )
    opened = open_runs(runs or [])
    token = "" if no_token else secrets.token_urlsafe(18)
    with _listening(host, port) as sock:
        shown = min(names, default="") if host in ANYWHERE else host
        number = sock.getsockname()[1]
        place = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/"
        url = f"{place}?token={token}" if token else place
        app = make_app(opened, token=token, hosts=names | {host_name(shown)})
        server = _server(app)
        _announce(screen, url, len(opened), no_token=no_token)
        if not (no_open or json):
            _open_when_up(server, url)
        threading.Thread(target=_warm, args=[opened], daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            server.run([sock])
    return 0


def _named(given: str, name: str) -> str:
    if not name:
        raise InputError(
            f"--allow-host: expected a host's name such as hub.example, got '{given}'. Leave out "
            "http:// and paths."
        )
    return name


def _announce(screen: Screen, url: str, runs: int, *, no_token: bool) -> None:
    if screen.json:
        screen.result({"url": url, "runs": runs})
        return
    line = f"{'1 run' if runs == 1 else f'{runs} runs'}: {url}"
    # an address is copied whole; in a group, since rich joins bare texts and forgets how they wrap
    screen.show(Group(Text(line, no_wrap=True, overflow="ignore")))
    if no_token:
        screen.say("No token is asked for: everyone who can reach this port can look.")
    screen.say("Ctrl-C ends it.")


def _warm(runs: OpenRuns) -> None:
    """Begin to read the first run while the browser is still opening."""
    with contextlib.suppress(TraitscopeError):  # its page will say what is wrong with it
        runs[0].generations()


def _server(app: object) -> uvicorn.Server:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            lifespan="off",
            ws="none",
            access_log=False,  # addresses hold the token
            log_level="error",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )


def _open_when_up(server: uvicorn.Server, url: str) -> None:
    def wait() -> None:
        while not (server.started or server.should_exit):
            threading.Event().wait(0.02)
        if server.started:
            webbrowser.open(url)

    threading.Thread(target=wait, daemon=True).start()


def _listening(host: str, port: int | None) -> socket.socket:
    """A listening socket; where no port was asked for, on the first free one of a few."""
    wanted = range(FIRST_PORT, FIRST_PORT + TRIED) if port is None else range(port, port + 1)
    for number in wanted:
        try:
            return _bound(host, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _cannot(host, number, error) from error
    ports = f"port {port}" if port is not None else f"ports {wanted[0]} to {wanted[-1]}"
    raise InputError(
        f"Expected a free port, but {ports} {'is' if port is not None else 'are'} in use. "
        "Name another one with --port, or --port 0 for any."
    )


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # there it would let two listen on one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot(host: str, port: int, error: OSError) -> InputError:
    said = f"Expected to listen on {host}, port {port}, got '{error.strerror or error}'."
    if isinstance(error, PermissionError):
        return InputError(f"{said} Ports below 1024 are the system's: name another with --port.")
    return InputError(f"{said} Name an address of this machine with --host.")
