"""Several processes as one run: one on each host, each with the devices that it sees.

All of them train together; the first one writes. Evaluations are shared out, each to one process.
They meet in the run folder, which has to be one that all of them see. When one ends early, all do.
"""

from .interruption import StoppedError as StoppedError
from .processes import blame as blame
from .processes import compare as compare
from .processes import connect as connect
from .processes import fetch as fetch
from .processes import first_decides as first_decides
from .processes import is_first as is_first
from .processes import leave as leave
from .processes import wait as wait
