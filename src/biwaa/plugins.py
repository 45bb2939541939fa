"""Methods, backbones and benchmarks of other packages: whatever they register when they are imported.

A package names its module in its pyproject.toml, and biwaa imports it when a name is asked for that it does not know:

    [project.entry-points."biwaa.plugins"]
    mine = "my_package.my_module"
"""

from functools import cache
from importlib.metadata import entry_points

from biwaa.errors import BiwaaError

GROUP = "biwaa.plugins"


@cache
def load_plugins() -> None:
    """Import every installed package's entry of the group, once.

    Raises:
        BiwaaError: one cannot be imported.
    """
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # another package's code fails as it likes
            what = f"the plugin {entry.name} = {entry.value} cannot be imported"
            raise BiwaaError(f"{what} ({type(error).__name__}: {error}): mend or uninstall it.") from error
