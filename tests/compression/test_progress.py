"""What a job prints, and what it logs instead."""

import logging

import pytest

from tfnas.compression.progress import Progress, TrialNews, progress_of

NEWS = TrialNews(2, 5, 1.5, "accuracy 0.9", "trial 1")


def report(progress):
    progress.phase("converting, since int8 fits")
    progress.note("8 of 9 files were read")
    progress.trial_ended(NEWS)
    progress.epoch_ended(1, 3)


@pytest.mark.parametrize(("verbose", "printed"), [(0, False), (1, True), ("auto", True)])
def test_reasons_are_printed_or_logged(verbose, printed, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="tfnas"):
        report(progress_of(None, verbose))
    lines = ["converting, since int8 fits", "  8 of 9 files were read"]
    assert capsys.readouterr().out.splitlines() == lines * printed
    expected = [*lines, "trial 2 of 5: accuracy 0.9"]
    assert caplog.messages == ([] if printed else expected)


def test_steps_are_printed_now_and_then_in_their_own_words(monkeypatch, capsys):
    """After 10 s without a line, or a tenth of the phase."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = progress_of(None, 1)
    clock[0] += 60.0
    progress.phase("scoring")
    progress.time_left(100.0)
    for number in range(1, 2001):
        clock[0] += 4.0
        progress.step_ended(number, 2000, "network")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "scoring",
        "  network 3 of 2,000; about 1 min 28 s left",
        "  network 6 of 2,000; about 1 min 16 s left",
    ]
    assert len(lines) < 60
    progress.phase("training")
    clock[0] += 11.0
    progress.epoch_ended(1, 3)
    assert capsys.readouterr().out == "training\n  epoch 1 of 3; about 0 s left\n"


def test_nothing_is_shown_by_default_where_nothing_is_to_be_printed(capsys, caplog):
    report(progress_of(None, 0))
    assert capsys.readouterr() == ("", "")
    own = Progress()
    assert progress_of(own, 1) is own
