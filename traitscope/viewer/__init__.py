"""A local web app that reads runs: numbers from the run folder, pages in plain ES modules.

`make_app` builds the application around opened runs, `open_runs` finds and opens them.  The pages
are in `static/`; nothing in them comes from another host.  Nothing here prints, listens or knows of
a terminal: the command line does.
"""

from traitscope.viewer.guard import Guard, cookie_of, host_name
from traitscope.viewer.open_runs import OpenRuns, open_runs
from traitscope.viewer.server import make_app

__all__ = ["Guard", "OpenRuns", "cookie_of", "host_name", "make_app", "open_runs"]
