import pytest

from data_pipeline.user_error import UserError, did_you_mean


@pytest.mark.parametrize("name", ["optimizer_args.lrr", "lrr", "optimzer_args.lr"])
def test_a_name_with_a_dot_is_close_to_what_is_close_to_its_end(name):
    assert did_you_mean(name, ["dropout", "optimizer_args.lr"]) == "; did you mean 'optimizer_args.lr'?"


def test_the_first_of_names_with_the_same_end_is_meant():
    assert did_you_mean("lrr", ["first.lr", "second.lr"]) == "; did you mean 'first.lr'?"


def test_of_many_names_the_first_are_listed():
    names = [f"name_{i:03}" for i in range(100)]
    assert did_you_mean("x", names[:30]) == f"; known: {', '.join(names[:30])}"
    assert did_you_mean("x", names) == f"; known: {', '.join(names[:30])} and 70 more"


def test_ipython_shows_its_text_and_no_traceback():
    assert UserError("the key\x1b is wrong\nremove it")._render_traceback_() == [
        "error: the key\\u001b is wrong\nremove it"
    ]
