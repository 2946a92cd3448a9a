import json
from dataclasses import replace

import pytest

from cluster.planning.identity import encode
from cluster.results.deserialize import decode_skeleton
from cluster.storage.trial_file import TrialFile
from data_pipeline.skeleton import HANDS17, NYU, Palm


def trial_of(skeleton):
    return TrialFile(description={"data": {"skeleton": json.loads(json.dumps(encode(skeleton)))}})


@pytest.mark.parametrize("known", [HANDS17, NYU])
def test_the_skeleton_is_the_one_that_is_known_with_its_palm(known):
    trial = trial_of(known)
    del trial.description["data"]["skeleton"]["args"]["palm"]
    assert decode_skeleton(trial) == known


@pytest.mark.parametrize("palm", [None, Palm(base=(0,), knuckles=(4, 3, 2))])
def test_the_skeleton_is_the_users_own_where_it_is_none_of_those(palm):
    own = replace(HANDS17, name="own", palm=palm)
    assert decode_skeleton(trial_of(own)) == own
