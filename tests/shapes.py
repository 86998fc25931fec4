"""The checker of types and shapes that tests put on every function of the package."""

import beartype

# An int is a fine float, as PEP 484 has it.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
