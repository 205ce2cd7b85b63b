"""What a job prints, and what it logs instead."""

import logging

import pytest

from tfnas.compression.progress import Progress, TrialNews, progress_of

NEWS = TrialNews(2, 5, 1.5, "accuracy 0.9", "trial 1")


def report(progress):
    progress.phase("converting, since int8 fits")
    progress.trial_ended(NEWS)
    progress.epoch_ended(1, 3)


@pytest.mark.parametrize(("verbose", "printed"), [(0, False), (1, True), ("auto", True)])
def test_reasons_are_printed_or_logged(verbose, printed, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="tfnas"):
        report(progress_of(None, verbose))
    assert capsys.readouterr().out == "converting, since int8 fits\n" * printed
    expected = ["converting, since int8 fits", "trial 2 of 5: accuracy 0.9"]
    assert caplog.messages == ([] if printed else expected)


def test_nothing_is_shown_by_default_where_nothing_is_to_be_printed(capsys, caplog):
    report(progress_of(None, 0))
    assert capsys.readouterr() == ("", "")
    own = Progress()
    assert progress_of(own, 1) is own
