"""What each of several sources contributes, for terminal and page."""

from biwaa.report.cells import NONE, Cell, PageTable
from biwaa.result import Result

SOURCE_COLUMNS = (
    "target images on which it says by itself what was found; how well it and the others predict each other's labels; "
    "in percent"
)
"""What the columns are."""


def source_columns(result: Result) -> dict[str, list[str]]:
    """The columns of the table, a value a source."""
    sources = result.sources
    columns = {"images": [str(one.images) for one in sources], "classes": [str(one.classes) for one in sources]}
    shares = {
        "says the same": [one.relevance for one in sources],
        "others": [one.agreement for one in sources],
    }
    measured = {name: values for name, values in shares.items() if any(value is not None for value in values)}
    return columns | {
        name: ["" if value is None else f"{100 * value:.1f}" for value in values] for name, values in measured.items()
    }


def sources_table(result: Result) -> list[PageTable]:
    """The page's table; none with one source."""
    if not result.sources:
        return []
    columns = source_columns(result)

    def cell(value: str) -> Cell:
        return Cell(value, float(value)) if value else NONE

    rows = tuple(
        (Cell(one.spec), *(cell(values[row]) for values in columns.values())) for row, one in enumerate(result.sources)
    )
    return [PageTable(f"What each source contributes: {SOURCE_COLUMNS}", ("source", *columns), rows)]


def source_words(result: Result) -> str:
    """What the source is, in a few words."""
    spec, known = result.source.spec, result.remembered
    if known is None:
        return f"{spec}, {result.source.images} images" if result.source.images else "none"
    return f"the model {spec}" + (f", which remembers {known.images} images" if known.images else ", its head alone")
