"""xenstored's wire protocol, fuzzed: what is no message is one error, and nothing piles up.  Sans-IO (io/xs_wire.h)."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbridge.adapters.hypervisors.xen.xenstore import wire
from eventbridge.adapters.hypervisors.xen.xenstore.store import Watched
from eventbridge.adapters.hypervisors.xen.xenstore.wire import HEADER, PAYLOAD_MAX, Decoder, Message, Type, WireError

LARGEST = HEADER.size + PAYLOAD_MAX
numbers = st.integers(0, 2**32 - 1)
messages = st.builds(Message, st.sampled_from(Type), numbers, numbers, st.binary(max_size=40) | st.just(b"x" * 4096))


def decode(decoder: Decoder, data: bytes) -> list[Message]:
    decoder.feed(data)
    return list(iter(decoder.next, None))


@given(st.lists(messages), st.data())
def test_what_is_encoded_is_decoded_in_whatever_pieces_it_arrives(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(wire.encode, sent))
    decoder, received = Decoder(), []
    while stream:
        size = data.draw(st.integers(1, max(1, min(len(stream), 2 * LARGEST))))
        received += decode(decoder, stream[:size])
        stream = stream[size:]
        assert decoder.held < LARGEST
    decoder.end()
    assert received == sent
    assert decoder.held == 0


@given(st.lists(messages, min_size=1), st.data())
def test_a_stream_that_is_cut_is_truncated_unless_between_two_messages(
    sent: list[Message], data: st.DataObject
) -> None:
    stream = b"".join(map(wire.encode, sent))
    ends = {sum(len(wire.encode(one)) for one in sent[:count]) for count in range(len(sent) + 1)}
    at = data.draw(st.integers(0, len(stream)))
    decoder = Decoder()
    assert decode(decoder, stream[:at]) == sent[: sum(end <= at for end in ends) - 1]
    if at in ends:
        decoder.end()
        return
    with pytest.raises(WireError, match=r"ends within a message, after [0-9]+ of"):
        decoder.end()


@given(st.lists(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: HEADER.pack(15, 0, 0, 9) + data)))
def test_garbage_is_one_error_and_the_same_ever_after(pieces: list[bytes]) -> None:
    """Nothing else is raised, and less than a message is ever kept."""
    decoder = Decoder()
    for piece in pieces:
        try:
            decode(decoder, piece)
        except WireError as error:
            with pytest.raises(WireError, match="^" + str(error) + "$"):
                decode(decoder, wire.encode(Message(Type.READ, 1, 0, b"")))
            assert decoder.held == 0
            return
        assert decoder.held < LARGEST


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (HEADER.pack(20, 1, 0, 0), "of type 20, which there is not"),
        (HEADER.pack(0xFFFF, 1, 0, 0), "of type 65535, which there is not"),
        (HEADER.pack(Type.READ, 1, 0, 4097), "claims 4097 bytes: it can have 4096"),
        (HEADER.pack(Type.READ, 1, 0, 2**32 - 1), "claims 4294967295 bytes"),
    ],
)
def test_a_wrong_header_is_told_before_its_payload_comes(header: bytes, complaint: str) -> None:
    decoder = Decoder()
    assert decode(decoder, header[:-1]) == []
    with pytest.raises(WireError, match=complaint):
        decode(decoder, header[-1:])


def test_what_precedes_garbage_is_told() -> None:
    """The error comes in its place, however the stream is cut."""
    good = Message(Type.READ, 1, 0, b"value")
    decoder = Decoder()
    decoder.feed(wire.encode(good) + b"\xff" * 16)
    assert decoder.next() == good
    with pytest.raises(WireError):
        decoder.next()


def test_too_large_a_request_is_not_encoded() -> None:
    assert len(wire.encode(Message(Type.WRITE, 1, 0, b"x" * 4096))) == LARGEST
    with pytest.raises(WireError, match="4097 bytes: it can have 4096"):
        wire.encode(Message(Type.WRITE, 1, 0, b"x" * 4097))


@given(st.binary(max_size=60))
def test_any_payload_is_understood_or_is_the_one_error(payload: bytes) -> None:
    for parse in (wire.names, wire.watched, wire.number, wire.flag, wire.part, wire.error):
        try:
            parse(payload)
        except WireError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("parse", "payload", "meaning"),
    [
        (wire.names, b"", []),
        (wire.names, b"a\0b\0", ["a", "b"]),
        (wire.names, b"\xff\0", ["\udcff"]),
        (wire.watched, b"/path\0token\0", Watched("/path", "token")),
        (wire.watched, b"@releaseDomain\0\0", Watched("@releaseDomain", "")),
        (wire.number, b"4294967295\0", 4294967295),
        (wire.flag, b"T\0", True),
        (wire.flag, b"F\0", False),
        (wire.part, b"7\0a\0bc\0", wire.Part(b"7", ["a", "bc"], 5, False)),
        (wire.part, b"7\0a\0\0", wire.Part(b"7", ["a"], 3, True)),
        (wire.part, b"7\0\0", wire.Part(b"7", [], 1, True)),
        (wire.error, b"ENOENT\0", (errno.ENOENT, "ENOENT")),
        (wire.error, b"EWHATEVER\0", (errno.EINVAL, "EWHATEVER")),
    ],
)
def test_what_a_payload_means(parse: object, payload: bytes, meaning: object) -> None:
    assert callable(parse)
    assert parse(payload) == meaning


@pytest.mark.parametrize(
    ("parse", "payload"),
    [
        (wire.names, b"a"),
        (wire.watched, b"/path\0"),
        (wire.watched, b"/path\0token\0more\0"),
        (wire.number, b"0\0"),
        (wire.number, b"-1\0"),
        (wire.number, b"4294967296\0"),
        (wire.number, b"9" * 4000),
        (wire.flag, b"T"),
        (wire.part, b"7"),
        (wire.part, b"7\0a"),
        (wire.error, b"\0"),
        (wire.error, b"x" * 4000),
    ],
)
def test_what_no_payload_means_is_the_one_error(parse: object, payload: bytes) -> None:
    assert callable(parse)
    with pytest.raises(WireError):
        parse(payload)
