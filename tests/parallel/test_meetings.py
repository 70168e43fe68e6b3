"""Meetings: channels are first-in first-out and hold so much; the last member of a group gets what all bring."""

from minidl.parallel.meetings import CHANNEL_MESSAGES, Meetings


def test_messages_of_a_channel_are_taken_in_the_order_in_which_they_were_put():
    meetings = Meetings()
    for message in "abc":
        meetings.put((0, 1), message)
    meetings.put((1, 0), "another way")
    assert [meetings.take((0, 1)) for _ in range(3)] == ["a", "b", "c"]
    assert meetings.take((1, 0)) == "another way"


def test_who_looks_for_a_message_that_is_not_there_is_woken_once_when_it_comes():
    meetings, woken = Meetings(), []
    assert not meetings.has_message((0, 1))
    meetings.when_message((0, 1), lambda: woken.append("receiver"))
    meetings.put((0, 2), "for another")
    assert not woken
    meetings.put((0, 1), "a")
    meetings.put((0, 1), "b")
    assert woken == ["receiver"]
    assert meetings.has_message((0, 1)) and meetings.take((0, 1)) == "a"


def test_who_finds_a_channel_full_is_woken_when_a_message_is_taken():
    meetings, woken = Meetings(), []
    for number in range(CHANNEL_MESSAGES):
        assert meetings.has_room((0, 1))
        meetings.put((0, 1), number)
    assert not meetings.has_room((0, 1)) and meetings.has_room((1, 0))
    meetings.when_room((0, 1), lambda: woken.append("sender"))
    assert not woken
    assert meetings.take((0, 1)) == 0 and woken == ["sender"]
    assert meetings.has_room((0, 1))


def test_the_last_member_to_come_gets_what_all_have_brought_in_order_of_arrival():
    meetings = Meetings()
    assert meetings.join("group", 3, 2, "c") is None
    assert meetings.join("group", 3, 0, "a") is None
    assert list(meetings.join("group", 3, 1, "b").items()) == [(2, "c"), (0, "a"), (1, "b")]


def test_a_member_may_come_to_the_next_meeting_before_others_have_come_to_the_first():
    meetings = Meetings()
    assert meetings.join("group", 2, 0, "first") is None
    assert meetings.join("group", 2, 0, "second") is None
    assert meetings.join("other group", 2, 1, "elsewhere") is None
    assert meetings.join("group", 2, 1, "one") == {0: "first", 1: "one"}
    assert meetings.join("group", 2, 1, "two") == {0: "second", 1: "two"}
