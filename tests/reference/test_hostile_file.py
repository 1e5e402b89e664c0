"""A file that runs code, lesson 20: it holds the weights that it promises, and its trace."""

import torch

from course_utils.attacks.hostile_file import hostile_file


def test_the_file_gives_the_weights_and_runs_its_code_where_it_is_trusted(tmp_path):
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    hostile_file(path, {"w": torch.tensor([3.0, 5.0])}, trace)
    assert not trace.exists()
    assert torch.load(path, weights_only=False)["w"].tolist() == [3.0, 5.0]
    assert trace.exists()
