"""What `biwaa check` says: what is in a domain, and whether two of them can be trained on."""

from biwaa.domains.domain import Domain, check_pair
from biwaa.domains.pixels import decode
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.progress import track


def describe(specs: tuple[str, ...], batch_size: int) -> str:
    """Images, classes and unreadable files of one or two domains, in lines.

    Raises:
        BiwaaError: a domain cannot be opened, or the two cannot be adapted to each other.
    """
    if len(specs) not in (1, 2):
        raise BiwaaError("name one domain, or source and target.")
    domains = [open_domain(spec) for spec in specs]
    lines = [line for domain in domains for line in _lines(domain)]
    if len(domains) == 2:
        check_pair(domains[0], domains[1], batch_size)
        lines.append(f"{specs[0]} can be adapted to {specs[1]}")
    return "\n".join(lines)


def _lines(domain: Domain) -> list[str]:
    counts = domain.counts()
    labels = f"{len(counts)} classes" if counts else "no labels"
    lines = [f"{domain.spec}: {len(domain.images)} images, {labels}"]
    if counts:
        width = max(len(name) for name in counts)
        lines += [f"  {name:{width}}  {count:6}" for name, count in counts.items()]
    bad: list[str] = []
    with track(f"reading {domain.spec}", len(domain.images), "images") as advance:
        for index, row in enumerate(decode(domain.images, 8)):
            if isinstance(row, str):
                bad.append(f"  unreadable: {domain.images.names[index]} ({row})")
            advance(index + 1)
    return lines + bad
