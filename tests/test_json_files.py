"""JSON that anyone may have written."""

import pytest

from minidl.json_files import read_json


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000, b"\xef\xbb\xbf[]"], ids=lambda c: c[:5]
)
def test_what_is_no_json_is_one_sentence_with_the_files_name(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is no JSON file: .*") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_json_is_read_and_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a").write_text('{"größe": [1, null]}', encoding="utf-8")
    assert read_json(tmp_path / "a") == {"größe": [1, None]}
    for path, error in ((tmp_path, IsADirectoryError), (tmp_path / "none", FileNotFoundError)):
        with pytest.raises(error, match=f"'{path}'$"):
            read_json(path)
