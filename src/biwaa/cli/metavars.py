"""Words that several commands' flags share, as help and errors show them."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Spec = Annotated[str, arg(metavar="SPEC")]
Scores = Annotated[str, arg(metavar="FILE")]
Classes = Annotated[str, arg(metavar="WORDS")]
RunFolder = Annotated[Path, arg(metavar="RUN")]
ImagePaths = Positional[Annotated[tuple[str, ...], arg(metavar="PATH..")]]
Device = Literal["auto", "cpu", "cuda", "mps"]
