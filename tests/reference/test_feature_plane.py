"""The plane of feature space, lesson 04, against scikit-learn's PCA."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from course_utils.attacks.feature_plane import feature_plane
from course_utils.threat import Targeted
from tests.reference.small import models, noise_data


def test_the_plane_is_that_of_numpy_and_scikit_learn():
    data = noise_data(60)
    (model,) = models(data, 7)
    goal = Targeted(data.x[0], 1, 2)
    places = feature_plane(model, data, goal)(data.x).double().numpy()
    with torch.no_grad():
        features = model.features(data.x).double().numpy()
    labels = data.y.numpy()
    axis = features[labels == 1].mean(0) - features[labels == 2].mean(0)
    axis /= np.linalg.norm(axis)
    np.testing.assert_allclose(places[:, 0], features @ axis, atol=1e-5)
    both = features[labels != 0]
    centred = both - both.mean(0)
    rest = centred - np.outer(centred @ axis, axis)
    second = PCA(1, svd_solver="full").fit(rest).components_[0]
    sign = np.sign(places[:, 1] @ (features @ second))
    np.testing.assert_allclose(places[:, 1], sign * (features @ second), atol=1e-4)
