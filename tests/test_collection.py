"""collection_paused: no garbage is looked for meanwhile, and again afterwards as before."""

import gc

import pytest

from minidl.collection import collection_paused


@collection_paused()
def enabled_inside(fails=False):
    if fails:
        raise ValueError
    return gc.isenabled()


def test_collection_is_off_inside_and_as_it_was_outside():
    assert gc.isenabled() and not enabled_inside() and gc.isenabled()
    with pytest.raises(ValueError):
        enabled_inside(fails=True)
    assert gc.isenabled()
    gc.disable()
    try:
        assert not enabled_inside() and not gc.isenabled()
    finally:
        gc.enable()
