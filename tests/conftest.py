"""Data that the unit tests share: real images, but few of them."""

import pytest
from hypothesis import settings

from course_utils.data import Data, balanced, load

# The same examples in every run, and no time limit that a busy machine could miss.
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")


@pytest.fixture(scope="session")
def fashion() -> tuple[Data, Data]:
    """300 training and 200 test images, equally many of each class."""
    train, test = load()
    return balanced(train, 300, seed=0), balanced(test, 200, seed=0)


@pytest.fixture(scope="session")
def images(fashion) -> Data:
    """Training images."""
    return fashion[0]


@pytest.fixture(scope="session")
def held_out(fashion) -> Data:
    """Test images."""
    return fashion[1]
