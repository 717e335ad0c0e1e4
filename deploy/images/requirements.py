"""pyproject.toml on standard input, what one of its extras needs on standard output, a line each.

So that an image's layer of dependencies is built anew only when they change. Needs Python 3.11.
"""

import re
import sys
import tomllib

project = tomllib.load(sys.stdin.buffer)["project"]
own = re.compile(rf"{project['name']}\[(\w+)\]")


def needs(extra: str) -> set[str]:
    found: set[str] = set()
    for requirement in project["optional-dependencies"][extra]:
        another = own.fullmatch(requirement)
        found |= needs(another[1]) if another else {requirement}
    return found


print("\n".join(sorted({*project["dependencies"], *needs(sys.argv[1])})))  # noqa: T201
