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
