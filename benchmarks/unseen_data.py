"""Three data sets that had no part in any choice, made from packages: python benchmarks/unseen_data.py DATA_ROOT.

- letters: 24 typefaces of each kind (sans serif, serif, handwriting, display) draw A to Z and a to z; 26 classes
- emoji_kinds: emoji by four vendors, the eight usual categories; a vendor is split in two, so that the source's emoji
  and the target's have no emoji in common
- emoji_groups: the same emoji by their 69 groups of eight or more, all of a vendor in source and target alike

It needs `npm`, which fetches the packages, and a network. Nothing is random. Keep DATA_ROOT outside the project: the
pictures have licences of their own.
"""

import io
import json
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro
from PIL import Image, ImageDraw, ImageFont

VENDORS = ("google", "twitter", "facebook", "apple")
EMOJI, FONTS, FONT_LIST = "16.0.0", 24, "google-font-metadata@6.0.8"
KINDS = ("sans-serif", "serif", "handwriting", "display")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIDE, INK = 224, 150
"""Pixels of a picture's side, and of the longer side of the letter in it."""
LEAST = 8
"""Emoji of a group."""


def package(name: str, kept: Path) -> tarfile.TarFile:
    """A package's files; fetched once.

    Raises:
        CalledProcessError: there is no such package, or no network.
    """
    folder = kept / name.replace("/", "_")
    if not (found := list(folder.glob("*.tgz"))):
        folder.mkdir(parents=True, exist_ok=True)
        words = ["npm", "pack", name, "--silent", "--pack-destination", str(folder)]
        subprocess.run(words, check=True, capture_output=True)
        found = list(folder.glob("*.tgz"))
    return tarfile.open(found[0])


def bytes_of(files: tarfile.TarFile, name: str) -> bytes | None:
    """One file of a package; None where it has none of that name."""
    try:
        opened = files.extractfile(f"package/{name}")
    except KeyError:
        return None
    return opened.read() if opened else None


def faces(kind: str, kept: Path) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """Typefaces of a kind, evenly over the list of families in its alphabetical order."""
    families = json.loads(bytes_of(package(FONT_LIST, kept), "data/api-response.json") or b"")
    of_kind = sorted(one["family"] for one in families if one["category"] == kind and "latin" in one["subsets"])
    found, step = 0, len(of_kind) // (2 * FONTS)
    for family in of_kind[::step]:
        name = family.lower().replace(" ", "-")
        try:
            data = bytes_of(package(f"@fontsource/{name}", kept), f"files/{name}-latin-400-normal.woff")
        except subprocess.CalledProcessError:
            continue
        if data:
            yield name, ImageFont.truetype(io.BytesIO(data), INK)
            found += 1
        if found == FONTS:
            return


def drawn(letter: str, face: ImageFont.FreeTypeFont) -> Image.Image | None:
    """A letter in black on white, as large as `INK`; None where the typeface draws nothing."""
    left, top, right, bottom = face.getbbox(letter)
    if right - left < 2 or bottom - top < 2:
        return None
    larger = face.font_variant(size=max(round(face.size * INK / max(right - left, bottom - top)), 1))
    left, top, right, bottom = larger.getbbox(letter)
    picture = Image.new("L", (SIDE, SIDE), 255)
    place = ((SIDE - right - left) / 2, (SIDE - bottom - top) / 2)
    ImageDraw.Draw(picture).text(place, letter, font=larger, fill=0)
    return picture


def letters(out: Path, kept: Path) -> None:
    """Write the four kinds of typefaces below `out`."""
    for kind in KINDS:
        for name, face in faces(kind, kept):
            for letter in LETTERS:
                folder = out / kind / letter
                folder.mkdir(parents=True, exist_ok=True)
                for case in (letter, letter.lower()):
                    if picture := drawn(case, face):
                        picture.save(folder / f"{name}-{'upper' if case == letter else 'lower'}.png")


def emoji(root: Path, kept: Path) -> None:
    """Write every vendor's emoji by category, in two halves, and by group."""
    for vendor in VENDORS:
        files = package(f"emoji-datasource-{vendor}@{EMOJI}", kept)
        known: list[dict[str, Any]] = json.loads(bytes_of(files, "emoji.json") or b"")
        groups = Counter(one["subcategory"] for one in known)
        for number, one in enumerate(sorted(known, key=lambda one: int(one["sort_order"]))):
            if one["category"] == "Component" or not one[f"has_img_{vendor}"]:
                continue
            data = bytes_of(files, f"img/{vendor}/64/{one['image']}")
            if data is None:
                continue
            picture = Image.open(io.BytesIO(data)).convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
            places = [root / "emoji_kinds" / f"{vendor}_{'odd' if number % 2 else 'even'}" / one["category"]]
            if groups[one["subcategory"]] >= LEAST:
                places.append(root / "emoji_groups" / vendor / one["subcategory"])
            for place in places:
                place.mkdir(parents=True, exist_ok=True)
                flat.save(place / one["image"])


def main(root: tyro.conf.Positional[Path]) -> None:
    """Make all three.

    Args:
        root: folder that gets `letters`, `emoji_kinds` and `emoji_groups`, and the packages.
    """
    kept = root / "packages"
    emoji(root, kept)
    letters(root / "letters", kept)
    for domain in sorted(
        path for part in ("letters", "emoji_kinds", "emoji_groups") for path in (root / part).iterdir()
    ):
        classes = [path for path in domain.iterdir() if path.is_dir()]
        print(f"{domain.relative_to(root)}: {len(classes)} classes, {len(list(domain.glob('*/*.png')))} images")


if __name__ == "__main__":
    tyro.cli(main)
