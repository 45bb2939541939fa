"""What `biwaa check` says: what is in a domain, and whether two of them can be trained on."""

from biwaa.domains.domain import Domain, check_pair
from biwaa.domains.pixels import decode, readable
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.progress import track


def check_domains(specs: tuple[str, ...], batch_size: int) -> None:
    """Print images and classes of one or two domains, then make sure that all can be read and trained on.

    Raises:
        BiwaaError: a domain cannot be opened, holds unreadable images, or the two cannot be adapted to each other.
    """
    if len(specs) not in (1, 2):
        raise BiwaaError("name one domain, or source and target.")
    domains = [open_domain(spec) for spec in specs]
    for domain in domains:
        print("\n".join(_lines(domain)))
    for domain in domains:
        readable(domain, _unreadable(domain), skip=False)
    if len(domains) == 2:
        check_pair(domains[0], domains[1], batch_size)
        print(f"{specs[0]} can be adapted to {specs[1]}")


def _lines(domain: Domain) -> list[str]:
    counts = domain.counts()
    labels = f"{len(counts)} classes" if counts else "no labels"
    width = max((len(name) for name in counts), default=0)
    rows = [f"  {name:{width}}  {count:6}" for name, count in counts.items()]
    return [f"{domain.spec}: {len(domain.images)} images, {labels}", *rows]


def _unreadable(domain: Domain) -> dict[int, str]:
    bad: dict[int, str] = {}
    with track(f"reading {domain.spec}", len(domain.images), "images") as advance:
        for index, row in enumerate(decode(domain.images, 8)):
            if isinstance(row, str):
                bad[index] = row
            advance(index + 1)
    return bad
