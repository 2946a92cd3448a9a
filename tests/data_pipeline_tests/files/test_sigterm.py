import os
import signal

import pytest

from data_pipeline.files.sigterm import exit_on_sigterm


def test_a_second_sigterm_does_not_interrupt_the_cleaning_up():
    before, cleaned_up = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(SystemExit, match="143"):
        _end_and_clean_up(cleaned_up)
    assert cleaned_up == ["all"]
    assert signal.getsignal(signal.SIGTERM) is before


def _end_and_clean_up(cleaned_up):
    with exit_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned_up.append("all")


def test_a_sigterm_that_comes_later_ends_a_block_that_did_not_end(monkeypatch):
    monkeypatch.setattr("data_pipeline.files.sigterm._SAME_S", 0.0)
    with exit_on_sigterm():
        for _ in range(2):
            with pytest.raises(SystemExit, match="143"):
                os.kill(os.getpid(), signal.SIGTERM)
