import pytest
from hypothesis import settings

from tests.support import SKELETONS

# The same examples each time and no deadline: a test fails for what it tests, not by chance or on a busy machine.
settings.register_profile("posetune", derandomize=True, deadline=None)
settings.load_profile("posetune")


@pytest.fixture(params=SKELETONS, ids=lambda skeleton: skeleton.name)
def skeleton(request):
    return request.param
