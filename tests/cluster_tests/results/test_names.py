from hypothesis import given
from hypothesis import strategies as st

from cluster.planning.identity import unique_labels
from cluster.results.names import distinguishing_column, option_texts, short_names

SMALL = "{hidden_dims: [64, 64], activation: 'relu', dropout: 0.1}"
LARGE = "{hidden_dims: [256, 256], activation: 'relu', dropout: 0.1}"
WORDS = st.text(st.sampled_from("ab ,:'\"{}[]()\\=\n"), max_size=6)
PRIMITIVES = st.none() | st.booleans() | st.integers(0, 2) | st.floats(allow_nan=False) | WORDS
DICTS = st.dictionaries(st.sampled_from(["dim", "reach", "dims"]), PRIMITIVES | st.lists(st.integers(0, 2), max_size=2))


def labelled(values):
    """The labels of a column's values, as in a search space: equal values have the same one."""
    different = {repr(value): value for value in values}
    labels = dict(zip(different, unique_labels(list(different.values())), strict=True))
    return [labels[repr(value)] for value in values]


class TestTheTextsOfValues:
    def test_are_of_dicts_only_the_arguments_that_differ(self):
        assert option_texts([SMALL, LARGE]) == ["hidden_dims=[64, 64]", "hidden_dims=[256, 256]"]
        assert option_texts(["{dim: 8, reach: 1}", "{dim: 8}", "{dim: 8}"]) == ["reach=1", "{}", "{}"]
        assert option_texts(["{name: 'a, b: c}', dim: 8}", "{name: 'a', dim: 8}"]) == ["name='a, b: c}'", "name='a'"]

    def test_are_whole_if_there_is_one_value_or_not_only_dicts(self):
        assert option_texts([SMALL]) == [SMALL]
        assert option_texts([SMALL, None]) == [SMALL, "None"]
        assert option_texts([SMALL, "[1, 2]", LARGE]) == [SMALL, "[1, 2]", LARGE]

    @given(st.lists(DICTS | PRIMITIVES, min_size=1, max_size=5, unique_by=repr))
    def test_are_different_for_different_values(self, values):
        labels = unique_labels(values)
        assert len(set(option_texts(labels))) == len(values)


class TestTheColumnOfSettingsThatVaryTogether:
    def test_is_the_first_that_varies_if_it_distinguishes_the_rows(self):
        rows = [["MLP", SMALL], ["LCN", "{dim: 8}"]]
        assert distinguishing_column(["model", "model_args"], rows, None) == ("model", ["MLP", "LCN"])
        rows = [["MLP", SMALL], ["MLP", LARGE]]
        assert distinguishing_column(["model", "model_args"], rows, None) == ("model_args", [SMALL, LARGE])

    def test_has_otherwise_short_labels_with_what_is_needed_to_distinguish_the_rows(self):
        paths = ["model", "model_args", "optimizer_args.lr", "solver_config.num_epochs"]
        rows = [
            ["MLP", SMALL, 0.001, 10],
            ["MLP", SMALL, 0.003, 10],
            ["MLP", LARGE, 0.001, 10],
            ["LCN", "{dim: 8}", 0.001, 20],
            ["GNN", "{dim: 8}", 0.001, 20],
            ["GNN", "{dim: 9}", 0.001, 30],
        ]
        name, labels = distinguishing_column(paths, rows, None)
        assert labels == [
            "MLP (hidden_dims=[64, 64], lr=0.001)",
            "MLP (hidden_dims=[64, 64], lr=0.003)",
            "MLP (hidden_dims=[256, 256], lr=0.001)",
            "LCN",
            "GNN (dim=8)",
            "GNN (dim=9)",
        ]
        assert short_names([name, "optimizer_args.lr"]) == {name: "model", "optimizer_args.lr": "lr"}

    def test_has_the_labels_of_the_user(self):
        name, labels = distinguishing_column(["model", "model_args"], [["MLP", SMALL], ["LCN", "{}"]], ["small", "LCN"])
        assert short_names([name]) == {name: "model"}
        assert labels == ["small", "LCN"]

    @given(st.lists(st.tuples(st.sampled_from("ab"), DICTS, PRIMITIVES), min_size=1, max_size=6, unique_by=repr))
    def test_distinguishes_all_rows(self, rows):
        paths = ["model", "model_args", "optimizer_args.lr"]
        rows = list(zip(*map(labelled, zip(*rows, strict=True)), strict=True))
        _, values = distinguishing_column(paths, rows, None)
        assert len(set(map(repr, values))) == len(rows)
        assert len(set(option_texts(values))) == len(rows)
