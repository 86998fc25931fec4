"""Several processes as one run: one on each host, each with the devices it sees.

All of them train together, and the first one writes. Each evaluation is given to one process. They
exchange results in the run folder, which all must be able to see. When one ends early, all end.
"""

from .interruption import StoppedError as StoppedError
from .processes import agree_to_save as agree_to_save
from .processes import blame as blame
from .processes import compare as compare
from .processes import connect as connect
from .processes import fetch as fetch
from .processes import is_first as is_first
from .processes import leave as leave
from .processes import wait as wait
