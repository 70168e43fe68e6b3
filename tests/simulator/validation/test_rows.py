"""A file of published measurements, read or refused."""

import pytest

from simulator.validation.rows import COLUMNS, read
from tests.simulator.validation.published import row, written


def test_a_row_has_numbers_where_the_file_has_and_none_where_it_says_nothing(tmp_path):
    found = row(tmp_path, step_seconds="", expert="", layers=3, note="flash=1; tp_overlap=0; 24 = two dozen")
    assert (found.layers, found.expert, found.step_seconds, found.zero) == (3, None, None, 0)
    assert found.size("expert") == 1 and found.tags == {"flash": "1", "tp_overlap": "0"}
    with pytest.raises(ValueError, match="^expert is not stated$"):
        found.need("layers", "expert")


def test_columns_may_come_in_any_order(tmp_path):
    path = written(tmp_path, {"id": "a"}, {"id": "b"}, columns=COLUMNS[::-1])
    assert [found.id for found in read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": "many"}, r"row 2, column layers: 'many' is not a whole number of at least 1"),
        ({"devices": "0"}, r"row 2, column devices: '0' is not a whole number of at least 1"),
        ({"zero": "-1"}, r"row 2, column zero: '-1' is not a whole number of at least 0"),
        ({"data": "2.5"}, r"row 2, column data: '2.5' is not"),
        ({"step_seconds": "nan"}, r"row 2, column step_seconds: 'nan' is not a positive number"),
        ({"step_seconds": "-3"}, r"row 2, column step_seconds: '-3' is not a positive number"),
        ({"id": " "}, r"row 2, column id is empty"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        read(written(tmp_path, {}, changes))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no column 'id'"),
        (",".join(COLUMNS).encode(), "has no rows"),
        (",".join(COLUMNS[1:]).encode(), "has no column 'id'"),
        (",".join((*COLUMNS, "colour")).encode(), "an unknown column, 'colour'"),
        (",".join((*COLUMNS, "id")).encode(), "a column twice, 'id'"),
        (",".join(COLUMNS).encode() + b"\na,b\n", "row 1 has 2 cells, the first line names 34 columns"),
        (b"\xff\xfe\x00", "not a text in UTF-8"),
        (b'"id', "not a CSV file"),
    ],
)
def test_a_file_that_is_not_one_of_measurements_is_refused_in_one_sentence(tmp_path, content, said):
    path = tmp_path / "steps.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read(path)
