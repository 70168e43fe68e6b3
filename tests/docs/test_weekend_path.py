"""README's weekend path: the files are there, together they can be read in a weekend, and each has its line."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECTION = re.search(r"^## The weekend path\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
ROWS = re.findall(r"^\| (`.*?) \| *(.*?) *\|$", SECTION, re.MULTILINE)
LONGEST = 4000  # lines, together


def test_every_file_of_the_path_is_there_once_with_a_text_and_all_fit_into_a_weekend():
    files = [path for where, _ in ROWS for path in re.findall(r"`([\w./]+)`", where)]
    assert len(files) > 15 and len(set(files)) == len(files)
    assert all(re.sub(r"`[\w./]+`,? ?", "", where) == "" for where, _ in ROWS)  # nothing but files
    assert all(text for _, text in ROWS)
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in files}
    assert sum(lines.values()) <= LONGEST, lines
