"""Find the image files in a folder that holds one folder per class."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from curricula.data.photos import endings, is_image
from curricula.errors import UserError, printable, shown

PASSED_OVER = frozenset(
    {"__macosx", "__pycache__", "thumbs.db", "desktop.ini", "system volume information"}
    | {"$recycle.bin", "#recycle", "@recycle", "@eadir", "lost+found"}
)
"""Files and folders that systems add, in lower case."""
PHOTO_ENDINGS = frozenset(
    {".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".nef"}
    | {".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".3fr", ".x3f"}
)
"""Endings of the names of photos in formats that Pillow does not read."""
MAX_LISTED = 5  # names in one message


@attrs.define(kw_only=True)
class Search:
    """Finds image files, and counts what it passes over.

    Hidden are the names that begin with a dot, and those of `PASSED_OVER`.

    Attributes:
        hidden: number of hidden files and folders.
        other_files: number of files that are not images, by the ending of their names.
        loose_images: number of images outside of the folders of the classes.
        empty_folders: names of folders in place of a class, without an image.
        unread_photos: find photos in formats that are not read, which are an error otherwise.
    """

    hidden: int = 0
    other_files: Counter[str] = attrs.field(factory=Counter)
    loose_images: int = 0
    empty_folders: list[str] = attrs.field(factory=list)
    unread_photos: bool = False
    _seen: set[tuple[int, int]] = attrs.field(factory=set)
    _endings: frozenset[str] = attrs.field(factory=endings)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted, without the hidden ones.

        Raises:
            UserError: the folder cannot be read.
        """
        folders, files = self._list(folder)
        self.loose_images += len(self._images(folder, files))
        return sorted(folders)

    def classes(self, folder: str) -> dict[str, list[str]]:
        """Return the paths of all images of each class by its name, which is that of a folder in
        ``folder``; both in an order that is the same on every system.

        Names are in the composed form of Unicode.

        Raises:
            UserError: there is one class or none; two classes have the same name, except for its
                case or its form of Unicode; a name cannot be shown; a folder cannot be read, or is
                found a second time; a photo is in a format that is not read.
        """
        self._enter(folder)
        self._seen |= {_place(os.stat(above)) for above in Path(folder).resolve().parents}
        found: dict[str, list[str]] = {}
        spelt: dict[str, str] = {}  # each class's name without its case
        for name in self.folders(folder):
            paths = self._below(os.path.join(folder, name))
            if not paths:
                self.empty_folders.append(name)
                continue
            name = composed(name)
            if name != printable(name):
                raise UserError(f"the name of class {shown(name)} cannot be shown; rename it")
            other = spelt.setdefault(name.casefold(), name)
            if name in found or name != other:
                raise UserError(
                    f"{folder} has two folders {other} and {name}, whose names differ only in case "
                    "or in the form of Unicode; rename one, or put their images together"
                )
            found[name] = paths
        if len(found) < 2:
            what = "".join(f"images of one class, {name}" for name in found) or "no images"
            if over := self.passed_over():
                what += f" (passed over {', '.join(over)})"
            raise UserError(
                f"{folder} has {what}; it must hold two or more folders, one for each class, with "
                "the images of the class"
            )
        return {name: found[name] for name in sorted(found)}

    def images(self, folder: str) -> list[str]:
        """Return the paths of all images in a folder and in the folders below it, in an order that
        is the same on every system.

        Raises:
            UserError: a folder cannot be read, or is found a second time.
        """
        return self._below(folder)

    def passed_over(self) -> list[str]:
        """Return what was passed over, each as text with its number in parentheses."""
        by_count = sorted(self.other_files.items(), key=lambda each: (-each[1], each[0]))
        kinds = [f"{count:,} {ending}" for ending, count in by_count]
        counts = {
            "hidden files and folders": self.hidden and f"{self.hidden:,}",
            "files that are not images": listed(kinds),
            "images outside of a class's folder": self.loose_images and f"{self.loose_images:,}",
            "folders without an image": listed(self.empty_folders),
        }
        return [f"{what} ({count})" for what, count in counts.items() if count]

    def _below(self, folder: str) -> list[str]:
        """Return the paths of the images in a folder and in all folders below it, in order."""
        found: list[tuple[str, str, str]] = []
        left = [(folder, "")]
        while left:
            path, inner = left.pop()
            self._enter(path)
            folders, files = self._list(path)
            left += [(os.path.join(path, name), os.path.join(inner, name)) for name in folders]
            for name in self._images(path, files):
                found.append((composed(inner), composed(name), os.path.join(path, name)))
        return [path for *_, path in sorted(found)]

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of the folders and of the files in a folder, and count hidden ones."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name.lower() in PASSED_OVER:
                        self.hidden += 1
                    else:  # entry.is_dir() would raise an error for a link to itself
                        link = entry.is_symlink()
                        is_folder = os.path.isdir(entry.path) if link else entry.is_dir()
                        (folders if is_folder else files).append(entry.name)
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror})") from error
        return folders, files

    def _images(self, folder: str, names: Iterable[str]) -> list[str]:
        """Return those of some files' names that belong to images, and count the others.

        A file with the ending of an image counts as one, so that it is an error when it is read if
        it is damaged, or a link to nothing.

        Raises:
            UserError: a photo is in a format that is not read; a file cannot be read.
        """
        found = []
        for name in names:
            path, ending = os.path.join(folder, name), os.path.splitext(name)[1].lower()
            if ending in self._endings or self._has_image(path, ending):
                found.append(name)
            else:
                self.other_files[ending or "without an ending"] += 1
        return found

    def _has_image(self, path: str, ending: str) -> bool:
        if ending in PHOTO_ENDINGS and self.unread_photos:
            return True
        if ending in PHOTO_ENDINGS:
            raise UserError(
                f"{path} is a photo in a format that is not read; convert it to JPEG or PNG, or "
                "move it elsewhere"
            )
        try:
            return os.path.isfile(path) and is_image(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error

    def _enter(self, folder: str) -> None:
        """Check that a folder is found for the first time: a link to a folder above might lead
        round in circles, and one from the test images to the training images would hide errors.

        Raises:
            UserError: it was found before, or cannot be read.
        """
        try:
            status = os.stat(folder)
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror})") from error
        if _place(status) in self._seen:
            raise UserError(
                f"{folder} is a link to a folder that is there already; delete the link"
            )
        self._seen.add(_place(status))


def _place(status: os.stat_result) -> tuple[int, int]:
    """Return what identifies a folder on this machine, however its path is written."""
    return status.st_dev, status.st_ino


def composed(text: str) -> str:
    """Return a name in the composed form of Unicode: systems differ in what they store."""
    return unicodedata.normalize("NFC", text)


def listed(names: Sequence[str]) -> str:
    """Return names as text for a message, at most five of them."""
    more = len(names) - MAX_LISTED
    return ", ".join([*names[:MAX_LISTED], *([f"{more:,} more"] if more > 0 else [])])
