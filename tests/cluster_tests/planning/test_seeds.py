import numpy as np
import pytest
import torch

from cluster.planning.seeds import TrialSeeds, repetition_seed
from tests.cluster_tests.small_experiment import LR


class TestTheSeedOfARepetition:
    @pytest.mark.parametrize(
        ("seed", "repetition", "expected"),
        [
            (0, 0, 7711540714544783),
            (0, 1, 2849867795630718),
            (0, 2, 8396151971079988),
            (1, 0, 3630251794869490),
            (2**40, 7, 8989402064890120),
        ],
    )
    def test_is_the_same_for_ever(self, seed, repetition, expected):
        # Another number here means that no earlier result can be made again.
        assert repetition_seed(seed, repetition) == expected

    def test_differs_for_each_and_is_exact_as_a_double(self):
        seeds = {repetition_seed(seed, repetition) for seed in range(20) for repetition in range(20)}
        assert len(seeds) == 400
        assert all(int(float(seed)) == seed for seed in seeds)

    def test_depends_on_the_experiments_seed_and_its_number_alone(self, small_experiment):
        def seeds(n_repetitions, options, **changes):
            plan = small_experiment.experiment(
                {"experiment_config.n_repetitions": n_repetitions, **changes}, options
            ).plan()
            return {trial.repetition: trial.seed for trial in plan.trials}

        two = seeds(2, {LR: [1, 2]})
        assert two == {repetition: repetition_seed(0, repetition) for repetition in range(2)}
        three = seeds(3, {LR: [3, 2, 1], "model_args.dropout": [0.1]}, **{"solver_config.batch_size": 7})
        assert {repetition: three[repetition] for repetition in two} == two
        assert not set(seeds(3, {}, **{"experiment_config.seed": 1}).values()) & set(three.values())


class TestTheStreamsOfATrial:
    def test_are_the_same_for_ever(self):
        # Another number here means that no earlier result can be made again.
        assert TrialSeeds.of(0) == TrialSeeds(
            initialisation=4232842298785526,
            training=2383740928328724,
            order=8033538764449424,
            distorting=6464057275807353,
            augmenting=8169952197021792,
        )

    def test_are_independent_numbers(self):
        seeds = [
            seed for repetition in range(100) for seed in vars(TrialSeeds.of(repetition_seed(0, repetition))).values()
        ]
        assert len(set(seeds)) == 500

    def test_draw_what_their_seeds_say(self):
        seeds = TrialSeeds.of(1)
        generators = seeds.generators(torch.device("cpu"))
        for name in ("order", "distorting", "augmenting"):
            expected = torch.rand(3, generator=torch.Generator().manual_seed(getattr(seeds, name)))
            assert torch.equal(torch.rand(3, generator=getattr(generators, name)), expected)
        assert generators.order.device.type == "cpu"

    def test_come_from_numpys_seed_sequence(self):
        child = np.random.SeedSequence(5).spawn(5)[2]
        assert TrialSeeds.of(5).order == int(child.generate_state(1, np.uint64)[0]) >> 11
