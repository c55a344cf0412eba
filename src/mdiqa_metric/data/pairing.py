"""Finding of image files in folders and by patterns, and pairing by name."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (
    *(".apng", ".avif", ".avifs", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf"),
    *(".jpg", ".jpx", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class ImageError(ValueError):
    """An image cannot be read, found or paired. The message says what was expected, what was found and the fix."""


class _Named(NamedTuple):
    """A file and the name to pair it by: its stem, or its path below the folder that was searched recursively."""

    name: str
    path: Path


def list_images(paths: Paths, *, recursive: bool = False) -> list[Path]:
    """Lists the image files of folders, glob patterns and file names, each real file once.

    Folders and patterns yield the files that end in one of `SUFFIXES`, without hidden ones, in natural order (2 before
    10). Links are followed, but no folder is entered twice, nor one that contains the folder searched. Brackets in a
    pattern match literally if a name contains them. A file name is returned as given, whatever its suffix and whether
    or not it exists.

    Args:
        paths: one path or pattern, or several.
        recursive: also search subfolders, as the pattern "folder/**" does.

    Raises:
        ImageError: a folder or a pattern yields no image.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("10.png", "2.png", "notes.txt"):
        ...     (folder / name).touch()
        >>> [path.name for path in list_images(folder)]
        ['2.png', '10.png']
    """
    real: dict[str, Path] = {}
    for _, path in _find(paths, recursive):
        real.setdefault(os.path.realpath(path), path)
    return list(real.values())


def left_out(paths: Paths, *, recursive: bool = False) -> list[Path]:
    """Lists the files that `list_images` skips because they end in none of `SUFFIXES`; hidden files are not listed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "notes.txt").touch()
        >>> [path.name for path in left_out(folder)]
        ['notes.txt']
    """
    searched = [given for given in _each(paths) if _is_searched(given)]
    return [path for given in searched for path in _search(given, recursive) if not _is_image(path)]


def pair_by_stem(images: Sequence[Path], references: Sequence[Path], suffix: str = "") -> list[tuple[Path, Path]]:
    """Pairs each image with the reference of the same stem; file suffixes may differ ("bird.jpg", "bird.png").

    Args:
        images: the images, in the order of the result.
        references: as many references, in any order.
        suffix: what the images' stems add to the references': "_x4", or "sr_{stem}_x4" if there is a prefix too.

    Raises:
        ImageError: an image has no reference, a reference has no image, or a name occurs twice. The message lists all
            of them and gives the likely reason.

    Example:
        >>> pair_by_stem([Path("out/baby_x4.png")], [Path("in/baby.png")], suffix="_x4")
        [(PosixPath('out/baby_x4.png'), PosixPath('in/baby.png'))]
    """
    ours, theirs = ([_Named(path.stem, path) for path in paths] for paths in (images, references))
    return _pair(ours, theirs, suffix, "file name")


def pair_files(
    images: Paths, references: Paths, *, suffix: str = "", recursive: bool = False
) -> list[tuple[Path, Path]]:
    """Finds images and references as `list_images` does, and pairs them by name as `pair_by_stem` does.

    With `recursive`, subfolders are searched too and the name is the path below the folder given: "out/000/1.png" pairs
    with "in/000/1.png". A link pairs by its own name, not by that of its target.

    Raises:
        ImageError: as in `list_images` and `pair_by_stem`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("in/1.png", "out/1_x4.png"):
        ...     (folder / name).parent.mkdir()
        ...     (folder / name).touch()
        >>> pairs = pair_files(folder / "out", folder / "in", suffix="_x4")
        >>> [(image.name, reference.name) for image, reference in pairs]
        [('1_x4.png', '1.png')]
    """
    how = "path below the folders" if recursive else "file name"
    return _pair(_find(images, recursive), _find(references, recursive), suffix, how)


def _find(paths: Paths, recursive: bool) -> list[_Named]:
    """The images of `paths`, each once even if two of the paths lead to the same folder."""
    found: dict[str, _Named] = {}
    for given in _each(paths):
        chosen = [given]
        if _is_searched(given):
            chosen = [path for path in _search(given, recursive) if _is_image(path)]
            if not chosen:
                raise ImageError(_nothing_in(given))
        for path in chosen:
            below = recursive and given.is_dir()
            name = path.relative_to(given).with_suffix("").as_posix() if below else path.stem
            found.setdefault(os.path.join(os.path.realpath(path.parent), path.name), _Named(name, path))
    return list(found.values())


def _each(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]


def _is_searched(given: Path) -> bool:
    """Whether this is a folder or a pattern rather than a file name."""
    return given.is_dir() or (glob.has_magic(str(given)) and not given.exists())


def _search(given: Path, recursive: bool) -> list[Path]:
    """All files of a folder or a pattern, images or not, in natural order, without hidden ones."""
    if given.is_dir():
        folders = _folders(given) if recursive else [given]
        paths = [path for folder in folders for path in folder.iterdir()]
    else:
        paths = [*_matches(Path(given.anchor), given.parts[bool(given.anchor) :])]
    return sorted((path for path in paths if not path.name.startswith(".") and path.is_file()), key=_natural)


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The matches below a folder of a pattern, given as the parts of its path.

    Unlike in glob, "**" terminates when links form a cycle, and "br[x4]" matches a folder of that name.
    """
    if not parts:
        yield folder
        return
    part, *rest = parts
    if part == "**":
        for inner in _folders(folder):
            yield from _matches(inner, rest or ["*"])
    elif not glob.has_magic(part):
        yield from _matches(folder / part, rest)
    elif folder.is_dir():
        names = [path.name for path in folder.iterdir() if part.startswith(".") or not path.name.startswith(".")]
        for name in fnmatch.filter(names, part.replace("[", "[[]")) or fnmatch.filter(names, part):
            yield from _matches(folder / name, rest)


def _folders(top: Path) -> Iterator[Path]:
    """The folder and its subfolders, each real one once, without hidden ones.

    Links come last, so that a folder is listed under its own name if it is also below `top`. Links to a parent folder
    are not followed.
    """
    entered: set[str] = set()
    waiting, links = [top], list[Path]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(folder)
        upwards = any(Path(os.path.realpath(inner)).is_relative_to(real) for inner in (top, folder.parent))
        if real in entered or (upwards and folder != top) or not folder.is_dir():
            continue
        entered.add(real)
        yield folder
        inner = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=_natural)
        links += [path for path in inner if path.is_symlink() and path.is_dir()]
        waiting += [path for path in reversed(inner) if not path.is_symlink() and path.is_dir()]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _nothing_in(given: Path) -> str:
    """The message for a folder or a pattern without images."""
    if not given.is_dir():
        folders = any(path.is_dir() for path in _matches(Path(given.anchor), given.parts[bool(given.anchor) :]))
        mend = f" It matches folders: the pattern {given / '**'} finds what they hold." if folders else ""
        return f"The pattern {given} holds no image: expected files that end in {', '.join(SUFFIXES)}.{mend}"
    with suppress(OSError):  # an unreadable subfolder
        if any(_is_image(path) for folder in _folders(given) for path in folder.iterdir()):
            return (
                f"The folder {given} holds no image itself, but its sub-folders do: pass --recursive, in Python "
                "recursive=True, to search them."
            )
    return f"The folder {given} holds no image: expected files that end in {', '.join(SUFFIXES)}."


def _pair(images: Sequence[_Named], references: Sequence[_Named], suffix: str, how: str) -> list[tuple[Path, Path]]:
    by_name = dict(references)
    cut = [_Named(_without(name, suffix), path) for name, path in images]
    names = {name for name, _ in cut}
    complaints = [
        ("Images without a reference", [path for name, path in cut if name not in by_name]),
        ("References without an image", [path for name, path in references if name not in names]),
        ("Images whose name occurs twice", _repeated(cut)),
        ("References whose name occurs twice", _repeated(references)),
    ]
    if found := [f"{what}: {_few(files)} ({len(files)})" for what, files in complaints if files]:
        less = f" and without {suffix}" if suffix else ""
        hint = _hint(cut, references) or _hint_at_suffix(images, references, suffix)
        raise ImageError(f"Images and references pair by {how} without suffix{less}. {'. '.join(found)}.{hint}")
    return [(path, by_name[name]) for name, path in cut]


def _without(name: str, suffix: str) -> str:
    """A name without what `suffix` adds to its last part; "" if it does not have that."""
    before, _, after = suffix.rpartition("{stem}")
    folder, slash, stem = name.rpartition("/")
    if not (stem.startswith(before) and stem.endswith(after) and len(stem) > len(before + after)):
        return ""
    return folder + slash + stem[len(before) : len(stem) - len(after)]


def _hint(images: Sequence[_Named], references: Sequence[_Named]) -> str:
    """A sentence with the likely reason why names do not pair, and the fix; "" if there is none."""
    ours, theirs = ({name for name, _ in side} for side in (images, references))
    if {_folded(name) for name in ours - theirs} & {_folded(name) for name in theirs - ours}:
        return " Some names differ only in case, or in how their accents are coded: rename them."
    if any(len({path.parent for path in _repeated(side)}) > 1 for side in (images, references)):
        return (
            " Names repeat in several folders: give the two parent folders and pass --recursive, in Python "
            "recursive=True, to pair by the path below them."
        )
    return ""


def _hint_at_suffix(images: Sequence[_Named], references: Sequence[_Named], suffix: str) -> str:
    ours, theirs = ({name for name, _ in side} for side in (images, references))
    addition = _addition(ours, theirs)
    if addition and addition != suffix:
        mend = f"pass --suffix {shlex.quote(addition)}, in Python suffix={addition!r}"
        return f" Every image's name is its reference's plus {addition}: {mend}."
    if addition := _addition(theirs, ours):
        return f" Every reference's name is its image's plus {addition}: rename one side."
    return ""


def _addition(longer: Iterable[str], shorter: set[str]) -> str:
    """What the longer names add to the shorter ones, in the form of --suffix; "" if it is not the same for all."""
    first, *others = sorted(longer)
    folder, slash, stem = first.rpartition("/")
    for name in sorted(shorter, key=len, reverse=True):
        inside = name.removeprefix(folder + slash)
        if not inside or inside == stem or inside not in stem:
            continue
        before, _, after = stem.partition(inside)
        addition = f"{before}{{stem}}{after}" if before else after
        if {_without(one, addition) for one in [first, *others]} <= shorter:
            return addition
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _natural(path: Path) -> tuple[list[list[str | int]], Path]:
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    return [[int(piece) if piece.isdecimal() else piece for piece in part] for part in parts], path


def _repeated(files: Sequence[_Named]) -> list[Path]:
    counts = Counter(name for name, _ in files)
    return [path for name, path in files if name and counts[name] > 1]


def _few(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (", ..." if len(paths) > 5 else "")
