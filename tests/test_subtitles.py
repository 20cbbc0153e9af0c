"""Words with times and subtitle files."""

from transduce.data.symbols import ByteCodec, CharacterCodec, WordCodec
from transduce.subtitles import Cue, TimedWord, cues_of, timed_words, to_srt, to_vtt


def seconds(count: int) -> list[tuple[float, float]]:
    return [(number / 10, round(number / 10 + 0.05, 2)) for number in range(count)]


def test_words_take_the_times_of_their_tokens():
    characters = CharacterCodec.fit(["ab cd"], min_count=1)
    ids = characters.encode("ab  cd").tolist()
    words = timed_words(characters, ids, seconds(len(ids)), confidences=[1.0, 0.5, 0, 0, 0.2, 0.4])
    assert [(word.text, word.start, word.end) for word in words] == [("ab", 0.0, 0.15), ("cd", 0.4, 0.55)]
    assert [round(word.confidence, 3) for word in words] == [0.75, 0.3]


def test_one_rule_serves_words_and_bytes():
    plain = WordCodec.fit(["über den"], min_count=1, limit=None)
    assert [word.text for word in timed_words(plain, plain.encode("über den").tolist(), seconds(2))] == ["über", "den"]
    raw = ByteCodec()
    ids = raw.encode("über a").tolist()
    words = timed_words(raw, ids, seconds(len(ids)))
    assert [word.text for word in words] == ["über", "a"]
    assert words[1].start == seconds(len(ids))[-1][0]


def test_nothing_said_is_no_word():
    assert timed_words(ByteCodec(), [], []) == []


def test_a_cue_ends_at_a_pause_at_its_length_and_at_its_time():
    pause = [TimedWord("a", 0, 0.5), TimedWord("b", 0.6, 1.0), TimedWord("c", 2.5, 3.0)]
    assert [cue.text for cue in cues_of(pause)] == ["a b", "c"]
    full = [TimedWord("x" * 20, number / 10, number / 10 + 0.1) for number in range(6)]
    assert [len(cue.text) for cue in cues_of(full)] == [83, 41]
    assert cues_of(full)[0].text.count("\n") == 1
    assert max(map(len, cues_of(full)[0].text.split("\n"))) == 41
    slow = [TimedWord("y", number * 2.0, number * 2.0 + 1.5) for number in range(6)]
    assert [(cue.start, cue.end) for cue in cues_of(slow)] == [(0, 5.5), (6, 11.5)]


def test_the_files_are_as_players_read_them():
    cues = [Cue(0.0, 1.2345, "a < b\n& c"), Cue(3661.5, 3662.0, "later")]
    assert to_srt(cues) == "1\n00:00:00,000 --> 00:00:01,234\na < b\n& c\n\n2\n01:01:01,500 --> 01:01:02,000\nlater\n"
    assert to_vtt(cues) == "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\na &lt; b\n&amp; c\n\n01:01:01.500 --> 01:01:02.000\nlater\n"
